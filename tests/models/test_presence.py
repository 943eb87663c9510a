"""The prior on the classes of an image, and active classes: what they mean, whatever the memory."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny import random_features, random_vocabulary

from proxyclip.config import DecodeConfig
from proxyclip.models.decoding.decode import dense_logits
from proxyclip.models.decoding.decoder import Decoder
from proxyclip.models.decoding.guided import GuidedFilter
from proxyclip.models.decoding.presence import coarse_hw, coarse_probabilities, most_present, presence
from proxyclip.models.decoding.queries import Queries
from proxyclip.models.features import EncodedFeatures

SEVEN = random_vocabulary(7)
SCALE = 5.0


def config(**changes):
    return DecodeConfig(logit_scale=SCALE, **changes)


@pytest.fixture(scope="module")
def features():
    return random_features(90, 130)


def queries(vocabulary):
    return Queries.of(torch.tensor(vocabulary.embeddings), torch.tensor(vocabulary.query_class))


def class_maximum(of_query, vocabulary):
    members = torch.tensor(vocabulary.query_class)
    return torch.stack([of_query[members == index].amax(0) for index in range(vocabulary.num_classes)])


def test_the_grid_has_a_cell_per_patch(features):
    assert coarse_hw(features) == (14, 20)  # 112 x 162 pixels, patches of 8


def test_coarse_probabilities_are_those_of_the_pixels_at_the_centres(features):
    found = coarse_probabilities(features, queries(SEVEN), SCALE)
    logits = SCALE * dense_logits(features, torch.tensor(SEVEN.embeddings))
    logits = torch.nn.functional.interpolate(logits[None], size=(14, 20), mode="bilinear")[0]
    torch.testing.assert_close(found.permute(2, 0, 1), class_maximum(logits.softmax(0), SEVEN), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("refined", [{}, {"pamr_steps": 1}, {"guided_radius": 1}])
def test_the_prior_multiplies_each_class_by_its_presence(features, refined):
    """Before a refinement by the guided filter, after one by PAMR."""
    with_prior, without = Decoder(config(presence=1.5, **refined)), Decoder(config(**refined))
    found, plain = (decoder.labels(features, SEVEN) for decoder in (with_prior, without))
    assert (found.winner != plain.winner).any()
    score = presence(coarse_probabilities(features, queries(SEVEN), SCALE))
    of_query = (1.5 * score.log().float())[torch.tensor(SEVEN.query_class)]
    if "guided_radius" in refined:
        coarse = coarse_probabilities(features, queries(SEVEN), SCALE, of_query).permute(2, 0, 1)
        by_class = GuidedFilter.of(features.resized.float() / 255, coarse.shape[1:], (90, 130), 1)(coarse)
    else:
        logits = SCALE * without.logits(features, SEVEN)
        by_class = class_maximum((logits + of_query[:, None, None]).softmax(0), SEVEN)
    torch.testing.assert_close(found.confidence, by_class.amax(0).clamp(0, 1), atol=1e-5, rtol=1e-4)
    assert (found.winner == by_class.argmax(0)).float().mean() > 0.999


def test_active_classes_are_labelled_as_if_there_were_no_others(features):
    score = presence(coarse_probabilities(features, queries(SEVEN), SCALE))
    chosen = most_present(score, 3, None)
    found = Decoder(config(active=3)).labels(features, SEVEN)
    embeddings, members = torch.tensor(SEVEN.embeddings), torch.tensor(SEVEN.query_class)
    logits = SCALE * dense_logits(features, embeddings[torch.isin(members, torch.tensor(chosen))])
    few = [[index for index in SEVEN.query_class if index in chosen].count(each) for each in chosen]
    by_class = torch.stack([part.amax(0) for part in logits.softmax(0).split(few)])
    torch.testing.assert_close(found.confidence, by_class.amax(0), atol=1e-5, rtol=1e-4)
    assert (found.winner == torch.tensor(chosen)[by_class.argmax(0)]).float().mean() > 0.999


def test_the_background_stays_active_and_takes_what_is_unsure(features):
    score = presence(coarse_probabilities(features, queries(SEVEN), SCALE))
    least = int(score.argmin())
    words = dataclasses.replace(SEVEN, background=least)
    assert least in most_present(score, 2, least)
    unsure = config(active=2, background_threshold=1.0)
    assert (Decoder(unsure).labels(features, words).winner == least).all()
    areas = Decoder(config(active=2, area_threshold=0.99)).labels(features, words).winner
    assert set(areas.unique().tolist()) <= set(most_present(score, 2, least))
    ignored = Decoder(config(active=2, ignore_below=1.0)).labels(features, words).winner
    assert (ignored == 255).all()


def test_equal_scores_choose_the_first_classes():
    assert most_present(torch.tensor([0.2, 0.5, 0.2, 0.2]), 2, None) == [0, 1]
    assert most_present(torch.tensor([0.2, 0.5, 0.2, 0.2]), 2, 3) == [0, 1, 3]


def test_as_many_active_classes_as_there_are_change_nothing(features):
    plain, active = (Decoder(config(active=count)).labels(features, SEVEN) for count in (0, 7))
    for field in ("winner", "confidence", "margin"):
        assert torch.equal(getattr(plain, field), getattr(active, field))


@pytest.mark.parametrize("changes", [{"presence": 1.0}, {"active": 3}, {"guided_radius": 2}])
def test_labels_do_not_depend_on_how_many_logits_are_held(features, changes):
    whole, tiles = Decoder(config(**changes)), Decoder(config(**changes))
    tiles._logits_at_once.size = 500
    one, other = (decoder.labels(features, SEVEN) for decoder in (whole, tiles))
    assert torch.equal(one.winner, other.winner)
    torch.testing.assert_close(one.confidence, other.confidence)


def test_stored_features_have_the_same_presence(features):
    stored = EncodedFeatures.of(features, "exact").decoded()
    decoder = Decoder(config(presence=1.0, active=4))
    found, expected = (decoder.labels(each, SEVEN) for each in (stored, features))
    assert (found.winner == expected.winner).float().mean() >= 0.999
