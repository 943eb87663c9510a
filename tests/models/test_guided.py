"""The guided filter: what its equations promise, and that it moves borders to the edges of the image."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tiny import WINDOWS, random_features, random_image, random_vocabulary, tiny_segmenter

from proxyclip.config import DecodeConfig, SegmenterConfig
from proxyclip.models.decoding.decoder import Decoder
from proxyclip.models.decoding.guided import EPS, GuidedFilter
from proxyclip.models.features import EncodedFeatures

GUIDED = DecodeConfig(guided_radius=2)


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain_guided_filter(image, maps, radius):
    """The definition, pixel by pixel, by least squares: one linear model of the colours in each square."""
    _, height, width = image.shape
    fits = np.zeros((len(maps), 4, height, width))
    for y in range(height):
        for x in range(width):
            square = np.s_[:, max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
            colours, values = (part[square].reshape(len(part), -1).T.astype(np.float64) for part in (image, maps))
            centred = colours - colours.mean(0)
            gram = centred.T @ centred / len(centred) + EPS * np.eye(3)
            slopes = np.linalg.solve(gram, centred.T @ (values - values.mean(0)) / len(centred))  # (3, K)
            fits[:, :3, y, x] = slopes.T
            fits[:, 3, y, x] = values.mean(0) - colours.mean(0) @ slopes
    result = np.zeros(maps.shape)
    for y in range(height):
        for x in range(width):
            square = np.s_[:, :, max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
            fit = fits[square].mean((2, 3))
            result[:, y, x] = fit[:, :3] @ image[:, y, x] + fit[:, 3]
    return result


def test_it_is_the_filter_of_the_paper():
    image, maps = torch.rand(3, 11, 14, generator=torch.Generator().manual_seed(1)), randn(4, 11, 14)
    found = GuidedFilter.of(image, (11, 14), (11, 14), 2)(maps)
    np.testing.assert_allclose(found.numpy(), plain_guided_filter(image.numpy(), maps.numpy(), 2), atol=2e-5)


def test_a_constant_stays_and_so_do_sums_over_maps():
    guide = GuidedFilter.of(torch.rand(3, 60, 80), (15, 20), (120, 160), 2)
    torch.testing.assert_close(guide(torch.full((1, 15, 20), 0.3)), torch.full((1, 120, 160), 0.3))
    shares = randn(5, 15, 20).softmax(0)
    torch.testing.assert_close(guide(shares).sum(0), torch.ones(120, 160))


def test_a_coarse_border_moves_to_the_edge_of_the_image():
    """The image has an edge at column 37; cells of 8 pixels say it is at 40, and are unsure."""
    image = torch.zeros(3, 64, 80)
    image[:, :, 37:] = torch.tensor([0.9, 0.5, 0.2])[:, None, None]
    left = torch.tensor([1, 1, 1, 1, 0.7, 0.2, 0, 0, 0, 0]).expand(8, 10)
    maps = torch.stack([left, 1 - left])
    blurred = torch.nn.functional.interpolate(maps[None], size=(64, 80), mode="bilinear")[0]
    winner, _, _ = GuidedFilter.of(image, (8, 10), (64, 80), 2).best_classes(maps, None, 2**20)
    expected = (torch.arange(80) >= 37).expand(64, 80).int()
    assert (winner != expected).float().mean() < 0.01 < (blurred.argmax(0) != expected).float().mean()


def test_the_best_class_is_the_same_however_many_maps_are_held():
    guide, maps = GuidedFilter.of(torch.rand(3, 30, 40), (15, 20), (60, 80), 2), randn(23, 15, 20).softmax(0)
    whole, one_by_one = (guide.best_classes(maps, None, at_once) for at_once in (2**24, 1))
    for one, other in zip(whole, one_by_one, strict=True):
        assert torch.equal(one, other)
    winner, confidence, margin = whole
    filtered = guide(maps)
    top = filtered.topk(2, dim=0)
    assert torch.equal(winner.long(), filtered.argmax(0))
    torch.testing.assert_close(confidence, top.values[0].clamp(0, 1))
    torch.testing.assert_close(margin, top.values[0].clamp(0, 1) - top.values[1].clamp(0, 1))
    allowed = torch.arange(23) % 2 == 0
    assert torch.equal(
        guide.best_classes(maps, allowed, 1)[0].long(), filtered.masked_fill(~allowed[:, None, None], -9).argmax(0)
    )


def test_stored_features_need_the_image_and_then_give_the_same_labels():
    features, words = random_features(90, 130), random_vocabulary(5)
    stored = EncodedFeatures.of(features, "exact").decoded()
    decoder = Decoder(GUIDED)
    with pytest.raises(ValueError, match=r"guided filter follows the edges.*guided_radius to 0.*resized="):
        decoder.labels(stored, words)
    found = decoder.labels(dataclasses.replace(stored, resized=features.resized), words)
    expected = decoder.labels(features, words)
    assert (found.winner == expected.winner).float().mean() >= 0.999
    assert (found.winner != decoder.labels(features, words, DecodeConfig()).winner).any()


def test_every_shape_of_image_has_labels():
    segmenter = tiny_segmenter(SegmenterConfig(windows=dataclasses.replace(WINDOWS, crop=0), decode=GUIDED))
    for size_hw in ((1, 1), (3, 200), (40, 33)):
        labels = segmenter.labels(segmenter.encode(random_image(*size_hw)), random_vocabulary(5))
        assert labels.winner.shape == size_hw
        assert labels.confidence.isfinite().all()
        assert ((labels.margin >= 0) & (labels.margin <= labels.confidence)).all()
