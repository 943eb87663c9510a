"""PAMR: labels follow the edges of the image, and each map is refined by itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tiny import LargestTensor

from proxyclip.config import WindowConfig
from proxyclip.models.decoding.decode import decode_features, dense_logits
from proxyclip.models.decoding.queries import Queries
from proxyclip.models.decoding.refine import pamr, pamr_affinity
from proxyclip.models.features import DenseFeatures
from proxyclip.models.windows import plan_windows


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dilations", [(1,), (8, 16), (1, 2, 4)])
def test_a_pixel_takes_all_it_has_from_its_neighbours(dilations):
    affinity = pamr_affinity(randn(3, 20, 31), dilations)
    assert affinity.shape == (8 * len(dilations), 20, 31)
    torch.testing.assert_close(affinity.sum(dim=0), torch.ones(20, 31))


def test_a_flat_image_averages_and_stays_finite():
    affinity = pamr_affinity(torch.full((3, 5, 5), 0.7), (1,))
    torch.testing.assert_close(affinity, torch.full((8, 5, 5), 1 / 8))
    spike = torch.zeros(1, 5, 5)
    spike[0, 2, 2] = 8
    around = torch.ones(3, 3)
    around[1, 1] = 0  # the centre is no neighbour of itself
    torch.testing.assert_close(pamr(spike, affinity, (1,), 1)[0, 1:4, 1:4], around)


def test_a_constant_map_stays_constant():
    affinity = pamr_affinity(randn(3, 12, 9), (2, 4))
    torch.testing.assert_close(pamr(torch.full((2, 12, 9), 0.25), affinity, (2, 4), 10), torch.full((2, 12, 9), 0.25))


def test_any_chunk_of_maps_gives_the_same():
    affinity, maps = pamr_affinity(randn(3, 16, 16), (1, 2)), randn(7, 16, 16, seed=1)
    together = pamr(maps, affinity, (1, 2), 3)
    apart = torch.cat([pamr(part, affinity, (1, 2), 3) for part in maps.split(2)])
    assert torch.equal(together, apart)


def test_labels_stop_at_an_edge():
    """Noise on both sides of an edge is smoothed, and does not cross it."""
    image = torch.zeros(3, 16, 32)
    image[:, :, 16:] = 1
    image += 0.01 * randn(3, 16, 32)
    clean = torch.stack([1 - image[0].round(), image[0].round()])
    noisy = clean + 0.7 * randn(2, 16, 32, seed=1)
    refined = pamr(noisy, pamr_affinity(image, (1, 2)), (1, 2), 10)
    wrong = [(maps.argmax(dim=0) != clean.argmax(dim=0)).float().mean().item() for maps in (noisy, refined)]
    assert wrong[0] > 0.1
    assert wrong[1] < wrong[0] / 3


@pytest.mark.parametrize("num_queries", [21, 150, 847])
def test_memory_does_not_grow_with_the_queries(num_queries):
    """PAMR runs on some classes at a time, so its largest tensor does not depend on the number of queries."""
    plan = plan_windows((120, 160), WindowConfig(short_side=56, crop=56, stride=28, pad_multiple=8))
    features = F.normalize(randn(len(plan.y.starts), len(plan.x.starts), 7, 7, 16), dim=-1)
    embeddings = F.normalize(randn(num_queries, 16, seed=1), dim=-1)
    affinity = pamr_affinity(randn(3, 120, 160, seed=2), (8, 16))
    case = (DenseFeatures(features, plan, resized=None), Queries.of(embeddings, torch.arange(num_queries)))
    at_once = 120 * 160
    with LargestTensor() as largest:
        decoded = decode_features(
            *case, logit_scale=40.0, refine=lambda maps: pamr(maps, affinity, (8, 16), 2), logits_at_once=at_once
        )
    chunk = 16 * at_once // (120 * 160)
    assert chunk < 21
    assert largest.numel <= max(chunk * (120 + 32) * (160 + 32), features.numel(), embeddings.numel())
    maps = pamr(dense_logits(case[0], embeddings), affinity, (8, 16), 2)
    probabilities = (40.0 * maps).softmax(dim=0)
    torch.testing.assert_close(decoded.confidence, probabilities.amax(dim=0), rtol=0, atol=1e-5)
