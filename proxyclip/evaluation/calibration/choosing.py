"""Choose thresholds on some images, and judge them on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from proxyclip.evaluation.calibration.evidence import BINS, Counts, Evidence, Floats, from_above
from proxyclip.evaluation.calibration.precision import interval, pooled_curve, precision_bounds
from proxyclip.vocabulary.thresholds import KEEP_NONE, Basis, ClassEvidence, Thresholds

FOLDS = 5


@dataclass(frozen=True)
class Rule:
    """When a threshold is good enough.

    The lower bound of its precision, which holds with `certainty`, reaches `precision`, on at least `min_images`
    images and `min_pixels` pixels that it keeps.
    """

    precision: float = 0.9
    certainty: float = 0.9
    min_images: int = 5
    min_pixels: int = 1000


@dataclass(frozen=True)
class Chosen:
    """bins: (K,) the lowest stored confidence that is kept; BINS keeps none. bases: what each rests on."""

    bins: Counts
    bases: Sequence[Basis]

    def thresholds(self) -> Thresholds:
        """The thresholds as probabilities, half-way between two stored values."""
        return Thresholds(tuple(_probability(int(each)) for each in self.bins))


def _probability(lowest: int) -> float:
    if lowest == BINS:
        return KEEP_NONE
    return round(max(lowest - 0.5, 0) / (BINS - 1), 5)


def choose(evidence: Evidence, rule: Rule) -> Chosen:
    """For each class the lowest threshold that follows the rule: it keeps the most pixels.

    A class whose pixels are too few at every threshold takes the threshold of all classes together. A class with
    enough, but with no threshold that follows the rule, keeps none.
    """
    right, pixels = (from_above(each) for each in evidence.pooled())
    curve = pooled_curve(right, pixels)
    pooled = _lowest(right, pixels, curve, rule)[0]
    bins, bases = np.full(evidence.num_classes, BINS), list[Basis]()
    for index in range(evidence.num_classes):
        right, pixels = (from_above(each) for each in evidence.of_class(index))
        lowest, enough = _lowest(right, pixels, curve, rule)
        if lowest is not None:
            bins[index] = lowest
            bases.append("class")
        elif not enough and pooled is not None:
            bins[index] = pooled
            bases.append("pooled")
        else:
            bases.append("none")
    return Chosen(bins, bases)


def _lowest(right: Counts, pixels: Counts, curve: Floats, rule: Rule) -> tuple[int | None, bool]:
    """The lowest confidence above which the rule is followed, and whether the evidence is enough at any."""
    enough = ((pixels > 0).sum(axis=0) >= rule.min_images) & (pixels.sum(axis=0) >= rule.min_pixels)
    _, low, _ = precision_bounds(right, pixels, curve, rule.certainty)
    good = np.flatnonzero(enough & (low >= rule.precision))
    return (int(good[0]) if len(good) else None), bool(enough.any())


def folds_of(num_images: int) -> npt.NDArray[np.int64]:
    """(N,) the fold of each image: equal numbers, in a fixed random order, since neighbours are often of one scene."""
    folds = np.arange(num_images) % min(FOLDS, max(num_images, 1))
    return np.random.default_rng(0).permutation(folds)


@dataclass(frozen=True)
class Judged:
    """What thresholds keep of some images. right, kept, pixels: (P,) for the rows of the evidence."""

    evidence: Evidence
    right: Counts
    kept: Counts
    pixels: Counts

    @property
    def precision(self) -> float | None:
        """The share of kept pixels that are right; None if none are kept."""
        return _share(self.right.sum(), self.kept.sum())

    @property
    def share(self) -> float | None:
        """The share of pixels that are kept."""
        return _share(self.kept.sum(), self.pixels.sum())

    def interval(self) -> tuple[float, float] | None:
        """The interval of the precision."""
        if self.precision is None:
            return None
        right, kept = np.zeros((2, self.evidence.num_images), np.int64)
        np.add.at(right, self.evidence.image, self.right)
        np.add.at(kept, self.evidence.image, self.kept)
        return interval(right, kept, self.precision)

    def of_class(self, index: int) -> tuple[float | None, tuple[float, float] | None]:
        """Precision and interval of a class; None if none of its pixels are kept."""
        rows = self.evidence.predicted == index
        right, kept = self.right[rows], self.kept[rows]
        precision = _share(right.sum(), kept.sum())
        if precision is None or self.precision is None:
            return None, None
        return precision, interval(right, kept, self.precision)


def _share(part: np.int64, whole: np.int64) -> float | None:
    return float(part / whole) if whole else None


def judge(evidence: Evidence, chosen: Chosen) -> Judged:
    """What thresholds keep of images."""
    row, lowest = np.arange(len(evidence.predicted)), chosen.bins[evidence.predicted]
    right, kept = (from_above(each)[row, lowest] for each in (evidence.right, evidence.pixels))
    return Judged(evidence, right, kept, evidence.pixels.sum(axis=1))


def cross_fit(evidence: Evidence, rule: Rule) -> Judged:
    """Judge the rule on images that it did not see: thresholds of the other folds, for each fold in turn."""
    fold = folds_of(evidence.num_images)
    right, kept = np.zeros((2, len(evidence.image)), np.int64)
    for each in range(int(fold.max()) + 1):
        judged = judge(evidence, choose(evidence.only(fold != each), rule))
        rows = fold[evidence.image] == each
        right[rows], kept[rows] = judged.right[rows], judged.kept[rows]
    return Judged(evidence, right, kept, evidence.pixels.sum(axis=1))


def class_evidence(evidence: Evidence, chosen: Chosen, fitted: Judged) -> list[ClassEvidence]:
    """What each class's threshold rests on; the precision is that of the cross-fit."""
    judged = judge(evidence, chosen)
    found = []
    for index, basis in enumerate(chosen.bases):
        rows = evidence.predicted == index
        kept, pixels = judged.kept[rows], judged.pixels[rows].sum()
        precision, bounds = fitted.of_class(index)
        found.append(
            ClassEvidence(
                basis,
                images=int((kept > 0).sum()),
                pixels=int(kept.sum()),
                kept=_share(kept.sum(), pixels) or 0.0,
                precision=precision,
                interval=bounds,
            )
        )
    return found


def most_confident(evidence: Evidence, share: float) -> Chosen:
    """Without labels: for each class the highest threshold that keeps at least a share of its pixels."""
    bins = np.zeros(evidence.num_classes, np.int64)
    for index in range(evidence.num_classes):
        kept = from_above(evidence.of_class(index)[1].sum(axis=0))
        if kept[0]:
            bins[index] = np.flatnonzero(kept >= share * kept[0])[-1]
    return Chosen(bins, ["share"] * evidence.num_classes)
