"""Region votes: the mean over a region decides for all of its pixels."""

from __future__ import annotations

import dataclasses

import torch
from tiny import random_features, random_vocabulary

from proxyclip.config import DecodeConfig
from proxyclip.models.decoding.decode import Decoded
from proxyclip.models.decoding.decoder import Decoder
from proxyclip.models.decoding.votes import RegionVotes
from proxyclip.models.features import EncodedFeatures

SEVEN = random_vocabulary(7)
CONFIG = DecodeConfig(logit_scale=5.0)


def randint(most, *shape):
    return torch.randint(-1, most, shape, generator=torch.Generator().manual_seed(5), dtype=torch.int32)


def with_regions(regions):
    return dataclasses.replace(random_features(90, 130), regions=regions)


def test_a_share_is_the_mean_over_the_pixels_of_the_region():
    probabilities = torch.rand(6, 8, 5, generator=torch.Generator().manual_seed(1))
    regions = randint(9, 30, 40)  # cells are 5 x 5 pixels
    pixels = probabilities.repeat_interleave(5, 0).repeat_interleave(5, 1)
    votes = RegionVotes.of(regions, probabilities)
    for index in range(9):
        torch.testing.assert_close(votes.shares[index], pixels[regions == index].mean(0))
    winner, confidence, margin = votes.best_classes(None)
    top = votes.shares.topk(2, dim=1).values
    for index in range(9):
        assert (winner[regions == index] == votes.shares[index].argmax()).all()
        assert (confidence[regions == index] == top[index, 0]).all()
        torch.testing.assert_close(margin[regions == index].mean(), top[index, 0] - top[index, 1])
    allowed = torch.tensor([False, True, False, True, True])
    assert set(votes.best_classes(allowed)[0][regions >= 0].tolist()) <= {1, 3, 4}


def test_a_region_gets_one_class_and_pixels_outside_stay():
    regions = torch.full((90, 130), -1, dtype=torch.int32)
    regions[10:50, 20:70], regions[60:80, 5:25] = 0, 1
    plain, found = (Decoder(CONFIG).labels(each, SEVEN) for each in (random_features(90, 130), with_regions(regions)))
    assert len(plain.winner[regions == 0].unique()) > 1
    for index in (0, 1):
        for field in dataclasses.fields(Decoded):
            assert len(getattr(found, field.name)[regions == index].unique()) == 1
    for field in dataclasses.fields(Decoded):
        outside = regions < 0
        assert torch.equal(getattr(found, field.name)[outside], getattr(plain, field.name)[outside])


def test_thresholds_hold_for_regions_too():
    everywhere = torch.zeros(90, 130, dtype=torch.int32)
    words = dataclasses.replace(SEVEN, background=6)
    found = Decoder(CONFIG).labels(with_regions(everywhere), words)
    assert len(found.winner.unique()) == 1
    unsure = dataclasses.replace(CONFIG, background_threshold=float(found.confidence.max()) + 0.01)
    assert (Decoder(unsure).labels(with_regions(everywhere), words).winner == 6).all()


def test_stored_features_vote_alike():
    features = with_regions(randint(40, 9, 13).repeat_interleave(10, 0).repeat_interleave(10, 1))
    stored = dataclasses.replace(EncodedFeatures.of(features, "exact").decoded(), regions=features.regions)
    found, expected = (Decoder(CONFIG).labels(each, SEVEN) for each in (stored, features))
    assert (found.winner == expected.winner).float().mean() >= 0.99
