"""Borders, judged on drawn scenes with exact labels: refinements of class probabilities against blind blurs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import torch

from proxyclip.demo import VOCABULARY_FILE
from proxyclip.demo.scenes import CLASSES, HELD_OUT_SEEDS
from proxyclip.evaluation.boundary import near_contour
from proxyclip.evaluation.confusion import ConfusionMatrix
from proxyclip.models.decoding.decode import dense_logits
from proxyclip.models.decoding.queries import Queries
from proxyclip.models.decoding.refine import pamr, pamr_affinity
from proxyclip.models.decoding.stitch import Stitch
from proxyclip.models.features import DenseFeatures
from proxyclip.models.pixels import normalise
from proxyclip.models.segmenter import Segmenter
from proxyclip.models.windows import batch_windows, cut_windows
from proxyclip.vocabulary.names import Vocabulary
from quality.hard_scenes import Kind, hard_scene
from quality.refiners import (
    box_blur,
    felzenszwalb_regions,
    gaussian_blur,
    guided_filter,
    merged,
    slic_regions,
    vote,
)

LOGIT_SCALE = 40.0
# Half-widths of the band around contours that boundary IoU looks at, as shares of the diagonal: the paper's, and a
# tight one.
BANDS = {"2 %": 0.02, "0.5 %": 0.005}


@dataclass
class Case:
    """An image with its class probabilities (H, W, K), and what candidates may look at."""

    image: np.ndarray
    truth: np.ndarray
    probabilities: np.ndarray
    proxy: np.ndarray
    _regions: dict[Any, np.ndarray] = field(default_factory=dict)

    def felzenszwalb(self, scale: float, least: int) -> np.ndarray:
        key = (scale, least)
        if key not in self._regions:
            self._regions[key] = felzenszwalb_regions(self.image, scale, least)
        return self._regions[key]

    def slic(self, count: int, compactness: float) -> np.ndarray:
        key = ("slic", count, compactness)
        if key not in self._regions:
            self._regions[key] = slic_regions(self.image, count, compactness)
        return self._regions[key]

    def exact(self) -> np.ndarray:
        """Connected regions of the truth: what a perfect region maker would give."""
        from skimage.measure import label

        return np.asarray(label(self.truth.astype(np.int32) + 1, connectivity=1))

    def pamr(self, steps: int) -> np.ndarray:
        guide = (torch.from_numpy(self.image).permute(2, 0, 1).float() / 255 - 0.45) / 0.27
        maps = torch.from_numpy(self.probabilities).permute(2, 0, 1)
        return np.asarray(pamr(maps, pamr_affinity(guide, (8, 16)), (8, 16), steps).permute(1, 2, 0))


Refiner = Callable[[Case], np.ndarray]

CONTROLS: dict[str, Refiner] = {
    "none": lambda case: case.probabilities,
    **{f"box blur {side} px": lambda case, s=side: box_blur(case.probabilities, s) for side in (5, 9, 13, 21, 33)},
    **{f"Gaussian blur {sigma} px": lambda case, s=sigma: gaussian_blur(case.probabilities, s) for sigma in (2, 4, 8)},
}
CANDIDATES: dict[str, Refiner] = {
    **{
        f"guided filter, grey, radius {r}, eps {e:g}": lambda case, r=r, e=e: guided_filter(
            case.probabilities, case.image, r, e
        )
        for r in (4, 8, 16)
        for e in (1e-4, 1e-3, 1e-2)
    },
    **{
        f"guided filter, colour, radius {r}, eps {e:g}": lambda case, r=r, e=e: guided_filter(
            case.probabilities, case.image, r, e, colour=True
        )
        for r in (4, 8, 16)
        for e in (1e-4, 1e-3, 1e-2)
    },
    **{
        f"Felzenszwalb k {k}, least {least}, share {share:g}": lambda case, k=k, m=least, s=share: vote(
            case.probabilities, case.felzenszwalb(k, m), s
        )
        for k, least in ((20, 20), (50, 20), (100, 50), (200, 50))
        for share in (1.0, 0.5)
    },
    **{
        f"SLIC {n}, compactness {c}, share {share:g}": lambda case, n=n, c=c, s=share: vote(
            case.probabilities, case.slic(n, c), s
        )
        for n, c in ((400, 10), (1000, 10), (1000, 20), (2000, 10))
        for share in (1.0, 0.5)
    },
    **{
        f"Felzenszwalb k 50, merged to {n} by proxy": lambda case, n=n: vote(
            case.probabilities, merged(case.felzenszwalb(50, 20), case.proxy, count=n)
        )
        for n in (12, 24, 48)
    },
    **{
        f"Felzenszwalb k 50, merged below {d:g} by proxy": lambda case, d=d: vote(
            case.probabilities, merged(case.felzenszwalb(50, 20), case.proxy, distance=d)
        )
        for d in (0.05, 0.15, 0.3)
    },
    **{f"PAMR {n} steps": lambda case, n=n: case.pamr(n) for n in (5, 10)},
    "exact regions (not a candidate)": lambda case: vote(case.probabilities, case.exact()),
}


class Score:
    """mIoU and boundary IoU over images, and the time of the refinement."""

    def __init__(self) -> None:
        self.confusion = ConfusionMatrix(len(CLASSES))
        self.inner = {band: np.zeros((2, len(CLASSES))) for band in BANDS}  # intersection, union
        self.seconds: list[float] = []

    def add(self, truth: np.ndarray, mask: np.ndarray, seconds: float) -> None:
        self.confusion.add(truth, mask)
        self.seconds.append(seconds)
        for band, share in BANDS.items():
            distance = max(1, round(share * float(np.hypot(*truth.shape))))
            near = [near_contour((part + 1).astype(np.uint8), distance) for part in (truth, mask)]
            true, found = (np.bincount(part[at], minlength=len(CLASSES)) for part, at in zip((truth, mask), near))
            both = np.bincount(truth[near[0] & near[1] & (truth == mask)], minlength=len(CLASSES))
            self.inner[band] += both, true + found - both

    def figures(self) -> dict[str, float]:
        out = {"mIoU": self.confusion.mean_iou}
        for band, (both, union) in self.inner.items():
            out[f"boundary {band}"] = float(100 * np.mean(both[union > 0] / union[union > 0]))
        return out


@cache
def segmenter(method: str) -> Segmenter:
    """The demo's networks with this method."""
    demo = Segmenter.from_preset("demo")
    config = replace(demo.config, model=replace(demo.config.model, method=method))
    return Segmenter(demo.clip, demo.proxy, config)


@torch.inference_mode()
def make_case(method: str, kind: Kind, seed: int, size_hw: tuple[int, int]) -> Case:
    """Draw, encode, and take class probabilities: the maximum over a class's queries, renormalised."""
    scene = hard_scene(kind, seed, size_hw)
    used = segmenter(method)
    features = used.encode(scene.image)
    vocabulary = Vocabulary.from_file(VOCABULARY_FILE)
    queries = Queries.of(used.embed(vocabulary), torch.tensor(vocabulary.query_class))
    logits = (LOGIT_SCALE * dense_logits(features, queries.embeddings)).softmax(0)
    by_class = torch.stack([part.amax(0) for part in logits.split(queries.classes.counts)], -1)
    by_class /= by_class.sum(-1, keepdim=True)
    return Case(scene.image, scene.mask, by_class.numpy(), proxy_grid(segmenter("proxyclip"), features))


def proxy_grid(used: Segmenter, features: DenseFeatures) -> np.ndarray:
    """The proxy's own features of an image on a grid of 4 px of the labels, (h, w, C), unit length."""
    assert used.proxy is not None
    windows = cut_windows(features.resized.float() / 255, features.plan, torch.zeros(3))
    grids = []
    for _, batch in batch_windows([windows], 1):
        tokens, grid_hw = used.proxy(normalise(batch, used.proxy.mean, used.proxy.std))
        grids.append(torch.nn.functional.normalize(tokens.float(), dim=-1).unflatten(1, grid_hw)[0])
    stacked = torch.stack(grids).unflatten(0, (len(features.plan.y.starts), -1))
    height, width = features.image_hw
    dense = DenseFeatures(stacked, features.plan, features.resized).at_size((height // 4, width // 4))
    stitch = Stitch.of(dense)
    return stitch.maps(torch.eye(stitch.grid.shape[-1])).permute(1, 2, 0).contiguous().numpy()


def measure(
    method: str, kind: Kind, seeds: Sequence[int], size_hw: tuple[int, int], refiners: dict[str, Refiner]
) -> dict[str, Score]:
    """The score of every refiner on the scenes of some seeds."""
    scores = {name: Score() for name in refiners}
    for case in (make_case(method, kind, seed, size_hw) for seed in seeds):
        for name, refine in refiners.items():
            case._regions.clear()
            started = time.thread_time()
            refined = refine(case)
            seconds = time.thread_time() - started
            scores[name].add(case.truth, refined.argmax(-1).astype(np.uint8), seconds)
    return scores


def batches(count: int, scenes: int) -> Iterator[range]:
    """Seeds of scenes that the networks never saw."""
    for number in range(count):
        yield HELD_OUT_SEEDS[number * scenes : (number + 1) * scenes]
