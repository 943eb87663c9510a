"""Labels from dense features equal those of a plain implementation, in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import LargestTensor

from proxyclip.config import WindowConfig
from proxyclip.models.decoding import decode
from proxyclip.models.decoding.decode import decode_features, dense_logits
from proxyclip.models.decoding.queries import Queries
from proxyclip.models.features import DenseFeatures
from proxyclip.models.windows import plan_windows

WINDOWS = WindowConfig(short_side=56, long_side=300, crop=40, stride=20, pad_multiple=8)
WIDTH = 24


def random_case(image_hw, counts, seed=0, config=WINDOWS):
    """Features, plan, embeddings and query classes of an image and classes with `counts` queries each."""
    generator = torch.Generator().manual_seed(seed)
    plan = plan_windows(image_hw, config)
    shape = (len(plan.y.starts), len(plan.x.starts), 5, 6, WIDTH)
    features = F.normalize(torch.randn(shape, generator=generator), dim=-1)
    embeddings = F.normalize(torch.randn(sum(counts), WIDTH, generator=generator), dim=-1)
    return features, plan, embeddings, torch.tensor(np.repeat(np.arange(len(counts)), counts))


def dense(features, plan):
    return DenseFeatures(features, plan, resized=None)


def decoded_from(features, plan, embeddings, query_class, **options):
    return decode_features(dense(features, plan), Queries.of(embeddings, query_class), **options)


def decode_plainly(features, plan, embeddings, query_class, logit_scale):
    probabilities = (logit_scale * dense_logits(dense(features, plan), embeddings)).softmax(dim=0)
    by_class = torch.stack([probabilities[query_class == c].amax(dim=0) for c in range(int(query_class.max()) + 1)])
    best = by_class.topk(min(2, len(by_class)), dim=0).values
    margin = best[0] - best[1] if len(by_class) > 1 else best[0]
    return by_class.argmax(dim=0), best[0], margin


CLASSES = {
    "one class": [1],
    "one class with synonyms": [3],
    "classes": [1] * 9,
    "synonyms": [2, 1, 5, 1, 1, 3, 7, 1],
    "many synonyms": [12, 1, 4, 30, 1, 3, 5, 1, 1],
    "more than 255 classes": [1, 2] * 150,
}


@pytest.mark.parametrize("at_once", [None, 60_000, 20_000, 500, 1], ids=lambda n: f"at_once={n}")
@pytest.mark.parametrize("name", CLASSES)
def test_decoding_equals_the_plain_way(name, at_once, monkeypatch):
    if at_once is not None:
        monkeypatch.setitem(decode.LOGITS_AT_ONCE, "cpu", at_once)
    case = random_case((43, 61) if at_once is None or at_once > 1 else (7, 9), CLASSES[name])
    decoded = decoded_from(*case, logit_scale=40.0)
    winner, confidence, margin = decode_plainly(*case, logit_scale=40.0)
    clear = (margin > 1e-5) | torch.tensor(len(CLASSES[name]) == 1)
    assert clear.float().mean() > 0.99
    assert torch.equal(decoded.winner[clear], winner[clear])
    torch.testing.assert_close(decoded.confidence, confidence, rtol=0, atol=1e-5)
    torch.testing.assert_close(decoded.margin, margin, rtol=0, atol=1e-5)
    assert decoded.winner.dtype == torch.int32
    assert len(CLASSES[name]) == 1 or decoded.winner.unique().numel() > 1


def test_extreme_scales_stay_finite():
    decoded = decoded_from(*random_case((20, 30), [1] * 5), logit_scale=10_000.0)
    assert torch.isfinite(decoded.confidence).all()
    assert torch.isfinite(decoded.margin).all()
    assert decoded.confidence.max() > 0.999


@pytest.mark.parametrize("at_once", [2**24, 10_000, 1], ids=["one chunk", "chunks of three", "a chunk per class"])
@pytest.mark.parametrize("counts", [[1] * 8, [1, 2, 1, 1, 1, 2, 1, 1]], ids=["names", "synonyms"])
def test_ties_go_to_the_first_class(counts, at_once, monkeypatch):
    """Classes 1 and 5 share all queries, so 5 never wins, however products of other shapes round."""
    monkeypatch.setitem(decode.LOGITS_AT_ONCE, "cpu", at_once)
    features, plan, embeddings, query_class = random_case((50, 60) if at_once > 1 else (9, 12), counts)
    embeddings[query_class == 5] = embeddings[query_class == 1]
    winner = decoded_from(features, plan, embeddings, query_class, logit_scale=40.0).winner
    assert (winner == 1).any()
    assert not (winner == 5).any()


def test_tied_classes_have_no_margin():
    features, plan, embeddings, query_class = random_case((50, 60), [1] * 4)
    embeddings[3] = embeddings[0]
    decoded = decoded_from(features, plan, embeddings, query_class, logit_scale=40.0)
    tied = decoded.winner == 0
    assert tied.any()
    assert decoded.margin[tied].max() < 1e-5
    assert decoded.confidence[tied].max() < 0.5 + 1e-5


def test_synonyms_split_the_mass_of_their_class():
    features, plan, embeddings, _ = random_case((50, 60), [1, 1])
    once = decoded_from(features, plan, embeddings, torch.tensor([0, 1]), logit_scale=40.0)
    doubled = embeddings[[0, 0, 1]]  # class 0 has the same query twice
    twice = decoded_from(features, plan, doubled, torch.tensor([0, 0, 1]), logit_scale=40.0)
    first = once.winner == 0
    assert torch.equal(once.winner, twice.winner)
    expected = once.confidence[first] / (1 + once.confidence[first])  # p / (p + p + q), p + q = 1
    torch.testing.assert_close(twice.confidence[first], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("image_hw", [(120, 160), (300, 40), (16, 24), (9, 12)], ids=str)
def test_queries_times_pixels_are_never_held(image_hw, monkeypatch):
    monkeypatch.setitem(decode.LOGITS_AT_ONCE, "cpu", 50_000)
    case = random_case(image_hw, [1, 2, 3] * 200)
    inputs = max(case[0].numel(), case[2].numel(), *(side * side * 8 for side in image_hw))
    bound = max(50_000, image_hw[0] * image_hw[1], inputs)
    assert bound < 1200 * image_hw[0] * image_hw[1] / 2
    with LargestTensor() as largest:
        decoded_from(*case, logit_scale=40.0)
    assert 0 < largest.numel <= bound


def decode_by_area_plainly(case, area_threshold, background):
    probabilities = (40.0 * dense_logits(dense(*case[:2]), case[2])).softmax(dim=0)
    by_class = torch.stack([probabilities[case[3] == c].amax(dim=0) for c in range(int(case[3].max()) + 1)])
    winner = by_class.argmax(dim=0)
    others = (winner != background).sum()
    for index in range(len(by_class)):
        if index != background and (winner == index).sum() <= area_threshold * others:
            by_class[index] = 0
    return by_class.argmax(dim=0), by_class.amax(dim=0)


@pytest.mark.parametrize("at_once", [None, 20_000])
@pytest.mark.parametrize("background", [0, 3])
@pytest.mark.parametrize("area_threshold", [0.1, 0.2, 1.0])
def test_small_classes_lose_their_pixels(area_threshold, background, at_once, monkeypatch):
    if at_once is not None:
        monkeypatch.setitem(decode.LOGITS_AT_ONCE, "cpu", at_once)
    case = random_case((43, 61), CLASSES["synonyms"])
    plain, confidence = decode_by_area_plainly(case, area_threshold, background)
    decoded = decoded_from(*case, logit_scale=40.0, area_threshold=area_threshold, background=background)
    before = decoded_from(*case, logit_scale=40.0)
    assert (decoded.winner != before.winner).any()
    assert (decoded.winner == plain).float().mean() > 0.999
    torch.testing.assert_close(decoded.confidence, confidence, rtol=0, atol=1e-5)
    if area_threshold == 1.0:
        assert (decoded.winner == background).all()


def test_a_class_that_may_not_win_cannot_overflow_the_softmax():
    """At scale 65, the exponential of an excluded class's lead can exceed float32."""
    features, plan, _, _ = random_case((43, 61), [1, 1])
    features = F.normalize(torch.ones_like(features), dim=-1)
    mean = F.normalize(torch.ones(WIDTH), dim=0)
    case = (features, plan, torch.stack([-mean, mean]), torch.tensor([0, 1]))
    decoded = decoded_from(*case, logit_scale=65.0, area_threshold=1.0, background=0)
    assert (decoded.winner == 0).all()
    assert torch.isfinite(decoded.confidence).all()
    assert torch.isfinite(decoded.margin).all()


@pytest.mark.parametrize("counts", [[1, 2], [1, 3, 2], [2, 1, 7], [1] * 5], ids=str)
def test_a_query_of_two_classes_is_the_first_ones(counts):
    """Published lists have such queries. The first class wins the tie, in whatever order maxima are computed."""
    features, plan, embeddings, query_class = random_case((20, 30), counts, seed=3)
    embeddings[query_class == len(counts) - 1] = embeddings[0].clone()
    decoded = decoded_from(features, plan, embeddings, query_class, logit_scale=40.0)
    assert not (decoded.winner == len(counts) - 1).any()
    won = decoded.winner == 0
    assert won.any()
    logits = dense_logits(dense(features, plan), embeddings)
    by_itself = logits[0] >= torch.cat([logits[1 : counts[0]], logits[:1]]).amax(dim=0)
    assert (decoded.margin[won & by_itself] < 1e-6).all()
