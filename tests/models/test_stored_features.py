"""Stored features decode like those of the network, within the error of their codec."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import SHARED
from tiny import LargestTensor

from proxyclip.config import DecodeConfig, ModelConfig, SegmenterConfig, WindowConfig
from proxyclip.models.codec import CODECS
from proxyclip.models.decoding.decoder import Decoder
from proxyclip.models.features import DenseFeatures, EncodedFeatures
from proxyclip.models.segmenter import Segmenter
from proxyclip.models.windows import merged_cells, plan_windows, stitch_matrix
from proxyclip.vocabulary.names import Vocabulary

WIDTH = 48
PATCH = 8
WINDOWS = WindowConfig(short_side=56, long_side=300, crop=40, stride=16, pad_multiple=8)
PLANS = {
    "windows that share patches": WINDOWS,
    "windows that share none": dataclasses.replace(WINDOWS, stride=40),
    "windows between patches": dataclasses.replace(WINDOWS, stride=20),
    "padded windows": dataclasses.replace(WINDOWS, crop=36, pad_multiple=24),
    "one window": dataclasses.replace(WINDOWS, crop=0),
    "one window, upsampled twice": dataclasses.replace(WINDOWS, crop=0, upsample_twice=True),
}
SIZES = [(43, 61), (120, 50), (56, 56), (9, 12)]
DECODE = DecodeConfig()
REAL = SHARED / "real"


def smooth_features(image_hw, windows=WINDOWS, seed=0, width=WIDTH):
    """Unit features near a space of 12 dimensions, different in every window, and a resized image of noise."""
    generator = torch.Generator().manual_seed(seed)
    plan = plan_windows(image_hw, windows)
    grid_hw = tuple(-(-side // PATCH) for side in plan.padded_hw)
    mixed = torch.randn(len(plan.y.starts), len(plan.x.starts), *grid_hw, 12, generator=generator)
    features = mixed @ torch.randn(12, width, generator=generator)
    features = F.normalize(features + 0.1 * torch.randn(features.shape, generator=generator), dim=-1)
    resized = torch.randint(256, (3, plan.y.resized, plan.x.resized), generator=generator, dtype=torch.uint8)
    return DenseFeatures(features, plan, resized)


def stored(features, codec):
    encoded = EncodedFeatures.of(features, codec)
    assert encoded.codec == codec
    return encoded.decoded()


def vocabulary(counts, seed=1, width=WIDTH):
    """Classes with `counts` random queries each."""
    names = [[f"class {index}, query {query}" for query in range(count)] for index, count in enumerate(counts)]
    embeddings = np.random.default_rng(seed).standard_normal((sum(counts), width)).astype(np.float32)
    return Vocabulary.from_names(names).with_embeddings(embeddings)


def decoder(config=DECODE):
    return Decoder(config, mean=(0.48, 0.46, 0.41), std=(0.27, 0.26, 0.28))


@pytest.mark.parametrize(
    ("side", "crop", "stride", "cells"),
    [
        (505, 336, 112, 51),  # windows at 0, 112 and 169: only the first two share patches, 14 less 2 at their borders
        (448, 336, 112, 30),  # windows at 0 and 112
        (560, 336, 112, 39),  # three windows at multiples of 112; many patches occur in all of them
        (336, 336, 112, 21),
        (672, 336, 336, 42),  # side by side
    ],
)
def test_shared_patches_are_merged_but_for_those_at_a_border(side, crop, stride, cells):
    plan = plan_windows((side, 336), WindowConfig(crop=crop, stride=stride, pad_multiple=16))
    merged = merged_cells(plan.y, 21, plan.whole)
    assert len(merged) == 21 * len(plan.y.starts)
    assert len(set(merged)) == cells


@pytest.mark.parametrize("side", [336, 505, 700])
def test_one_window_has_nothing_to_merge(side):
    plan = plan_windows((side, 336), WindowConfig(crop=0))
    assert plan.whole
    assert merged_cells(plan.y, 42, plan.whole) == tuple(range(42))


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("image_hw", SIZES, ids=str)
def test_only_cells_that_count_alike_for_every_pixel_are_merged(name, image_hw):
    plan = plan_windows(image_hw, PLANS[name])
    for axis in (plan.y, plan.x):
        grid = -(-axis.padded // PATCH)
        columns = stitch_matrix(axis, grid, plan.whole).T
        merged = torch.tensor(merged_cells(axis, grid, plan.whole))
        alike = (columns[:, None] == columns).all(dim=-1)
        assert torch.equal(alike, merged[:, None] == merged)
        firsts = [int((merged == number).nonzero()[0]) for number in range(int(merged.max()) + 1)]
        assert firsts == sorted(firsts)


def test_cells_of_a_window_are_not_merged_with_each_other():
    for name in PLANS:
        plan = plan_windows((43, 61), PLANS[name])
        grid = -(-plan.x.padded // PATCH)
        merged = torch.tensor(merged_cells(plan.x, grid, plan.whole)).view(-1, grid)
        assert all(len(window.unique()) == grid for window in merged), name


QUERIES = {
    "few": [1] * 21,
    "many": [1] * 847,
    "several a class": [2, 1, 5, 1, 12, 3, 7, 1] * 6,
}


@pytest.mark.parametrize("queries", QUERIES)
@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("image_hw", SIZES, ids=str)
def test_exactly_stored_features_give_the_same_labels(name, image_hw, queries):
    features = smooth_features(image_hw, PLANS[name])
    words = vocabulary(QUERIES[queries])
    expected = decoder().labels(features, words)
    found = decoder().labels(stored(features, "exact"), words)
    torch.testing.assert_close(found.confidence, expected.confidence, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.margin, expected.margin, rtol=0, atol=2e-3)
    clear = expected.margin > 2e-3  # a pixel at the edge of two labels may fall either way
    assert clear.float().mean() > 0.85
    assert torch.equal(found.winner[clear], expected.winner[clear])
    assert found.winner.unique().numel() > 3


def test_exactly_stored_features_change_few_labels():
    different = pixels = 0
    for name, windows in PLANS.items():
        for seed, queries in enumerate(QUERIES.values()):
            features = smooth_features((120, 160), windows, seed)
            labels = [
                decoder().labels(each, vocabulary(queries, seed)).winner
                for each in (features, stored(features, "exact"))
            ]
            assert labels[0].unique().numel() > 10, name
            different += int((labels[0] != labels[1]).sum())
            pixels += labels[0].numel()
    assert different <= 0.0005 * pixels


@pytest.mark.parametrize("codec", CODECS)
def test_of_two_classes_with_the_same_query_the_first_wins(codec):
    """The projection onto the basis must not round them apart."""
    counts = [1, 3, 2, 1, 6, 2]
    words = vocabulary(counts)
    embeddings = words.embeddings.copy()
    embeddings[-2:] = embeddings[0]  # the last class
    embeddings[4:6] = embeddings[[1, 2]]  # class 2
    words = words.with_embeddings(embeddings)
    features = smooth_features((120, 90))
    for found in (features, stored(features, codec)):
        winner = decoder().labels(found, words).winner
        assert set(winner.unique().tolist()) == {0, 1, 3, 4}


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("image_hw", SIZES, ids=str)
@pytest.mark.parametrize("codec", CODECS)
def test_no_cosine_of_a_pixel_is_off_by_more_than_the_bound(codec, image_hw, name):
    features = smooth_features(image_hw, PLANS[name])
    words = vocabulary([1] * 200)
    encoded = EncodedFeatures.of(features, codec)
    assert encoded.max_error <= CODECS[encoded.codec].max_error
    expected, found = (decoder().logits(each, words) for each in (features, encoded.decoded()))
    assert found.shape == (200, *image_hw)
    assert (found - expected).abs().max() <= encoded.max_error + 2e-6


def test_compact_features_have_fewer_numbers_a_patch():
    features = stored(smooth_features((120, 160)), "compact")
    assert features.basis is not None
    assert features.coefficients.shape[-1] == len(features.basis) < WIDTH
    assert features.dim == WIDTH
    assert features.image_hw == (120, 160)
    assert stored(smooth_features((120, 160)), "exact").dim == WIDTH


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("counts", [[1, 2, 3] * 200, [1] * 847], ids=["several a class", "847 queries"])
def test_queries_times_pixels_are_never_held(counts, codec):
    image_hw = (240, 320)
    features = stored(smooth_features(image_hw), codec)
    words = vocabulary(counts)
    one = decoder()
    one.queries(words)
    pixels = image_hw[0] * image_hw[1]
    with LargestTensor() as largest:
        one.labels(features, words)
    bound = 2**20  # logits at once on a CPU
    assert bound < sum(counts) * pixels / 20
    assert 0 < largest.numel <= max(bound, pixels, features.coefficients.numel())


def test_the_features_themselves_are_never_restored():
    """Queries are projected onto the basis. With so many patches, their features would be the largest tensor by far."""
    features = smooth_features((30, 30), WindowConfig(short_side=320, crop=0), width=512)
    found = stored(features, "compact")
    words = vocabulary([1] * 3, width=512)
    one = decoder()
    one.queries(words)
    with LargestTensor() as largest:
        one.labels(found, words)
    inputs = max(found.coefficients.numel(), found.basis.numel())
    assert inputs < features.features.numel() / 4
    assert largest.numel <= inputs


REFINED = DecodeConfig(pamr_steps=2, pamr_dilations=(1, 4))


@pytest.mark.parametrize("codec", CODECS)
def test_pamr_needs_the_image(codec):
    features = smooth_features((43, 61))
    found, words = stored(features, codec), vocabulary([1, 2, 1, 1, 3])
    for use in (decoder(REFINED).labels, decoder(REFINED).logits):
        with pytest.raises(ValueError, match=r"PAMR follows the edges of the image.*pamr_steps to 0.*resized="):
            use(found, words)
    found = dataclasses.replace(found, resized=features.resized)
    bound = CODECS[codec].max_error + 2e-6  # means of neighbours are off by no more
    expected, refined = (decoder(REFINED).logits(each, words) for each in (features, found))
    assert (refined - expected).abs().max() <= bound
    assert (refined - decoder().logits(found, words)).abs().max() > bound
    expected, refined = (decoder(REFINED).labels(each, words) for each in (features, found))
    equal = (refined.winner == expected.winner).float().mean()
    assert equal >= (0.9995 if codec == "exact" else 0.98)


@pytest.mark.parametrize("codec", CODECS)
def test_embeddings_of_another_clip_are_refused(codec):
    features = stored(smooth_features((43, 61)), codec)
    for use in (decoder().labels, decoder().logits):
        with pytest.raises(ValueError, match=f"embeddings of width 16, but the image features have width {WIDTH}"):
            use(features, vocabulary([1, 1], width=16))


def test_bytes_of_another_plan_are_refused():
    encoded = EncodedFeatures.of(smooth_features((43, 61)))
    other = dataclasses.replace(encoded, plan=smooth_features((120, 50)).plan)
    with pytest.raises(ValueError, match=r"features are damaged: the grid is \(\d+, \d+\), but its windows make"):
        other.decoded()


@pytest.fixture(scope="module")
def photographs():
    if not REAL.is_dir():
        pytest.skip("the real weights and photographs are not here")
    model = ModelConfig(
        clip=f"local-dir:{REAL / 'clip-deit-tiny'}",
        proxy="deit_tiny_patch16_224",
        proxy_weights=str(REAL / "vfm-deit-tiny" / "model.safetensors"),
    )
    segmenter = Segmenter.from_config(SegmenterConfig(model))
    return [segmenter.encode(path) for path in sorted((REAL / "msrc16-dev" / "images").iterdir())[::16]]


def test_photographs_keep_their_labels_in_few_bytes(photographs, record_property):
    words = Vocabulary.load(REAL / "msrc16.json", REAL / "msrc16.embeddings.safetensors")
    encoded = [EncodedFeatures.of(features) for features in photographs]
    kib = sum(len(each.data) for each in encoded) / len(encoded) / 1024
    expected = [decoder().labels(features, words).winner for features in photographs]
    found = [decoder().labels(each.decoded(), words).winner for each in encoded]
    pairs = zip(found, expected, strict=True)
    equal = sum(int((one == other).sum()) for one, other in pairs) / sum(labels.numel() for labels in expected)
    record_property("KiB an image", f"{kib:.1f}")
    record_property("labels equal", f"{equal:.4f}")
    assert {each.codec for each in encoded} == {"compact"}
    assert kib <= 60
    assert equal >= 0.99
