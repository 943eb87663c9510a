"""How far is a confidence from the share that is right? Reliability, expected calibration error, temperature."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from proxyclip.evaluation.calibration.choosing import folds_of
from proxyclip.evaluation.calibration.evidence import BINS, Counts, Evidence, Floats

# Groups of a diagram, each with about the same number of pixels.
GROUPS = 15
_CLASS_GROUPS = 8

# The probability that a stored byte means. The ends are half a step inside, since their log-odds must be finite.
CONFIDENCE: Floats = np.clip(np.arange(BINS) / (BINS - 1), 0.25 / (BINS - 1), 1 - 0.25 / (BINS - 1))


@dataclass(frozen=True)
class Group:
    """Pixels of neighbouring confidence. confidence: their mean. precision: the share that is right."""

    confidence: float
    precision: float
    pixels: int


def diagram(confidence: Floats, right: Counts, pixels: Counts, groups: int = GROUPS) -> list[Group]:
    """Groups with about the same number of pixels, in order of confidence. All arguments: (N,), in any order."""
    order = np.argsort(confidence, kind="stable")
    confidence, right, pixels = confidence[order], right[order], pixels[order]
    before = pixels.cumsum() - pixels / 2
    number = np.minimum(before * groups // max(pixels.sum(), 1), groups - 1).astype(np.int64)
    sums = [np.bincount(number, each, minlength=groups) for each in (confidence * pixels, right, pixels)]
    return [Group(float(c / n), float(r / n), int(n)) for c, r, n in zip(*sums, strict=True) if n]


def calibration_error(found: list[Group]) -> float | None:
    """Expected calibration error: the mean distance of confidence and precision, over the pixels of a diagram."""
    total = sum(group.pixels for group in found)
    if not total:
        return None
    return sum(abs(group.confidence - group.precision) * group.pixels for group in found) / total


@dataclass(frozen=True)
class Scaling:
    """A map of confidences: log-odds / temperature + offset, turned into a probability again."""

    temperature: float = 1.0
    offset: float = 0.0

    def __call__(self, confidence: npt.ArrayLike) -> Floats:
        values = np.asarray(confidence, float)
        return 1 / (1 + np.exp(-(np.log(values / (1 - values)) / self.temperature + self.offset)))


def fit_scaling(right: Counts, pixels: Counts, *, offset: bool) -> Scaling:
    """The scaling under which right and wrong are most likely (logistic regression, by Newton's method).

    right, pixels: (BINS,). offset: fit an offset too. A weight of one pixel holds the scaling at 1 and 0 where the
    pixels do not decide it. Raises ValueError if higher confidence does not mean that more pixels are right.
    """
    odds = np.log(CONFIDENCE / (1 - CONFIDENCE))
    columns = np.stack([odds, np.ones(BINS)] if offset else [odds])
    start = np.array([1.0, 0.0])[: len(columns)]
    weights = start.copy()

    def loss(values: Floats) -> float:
        logits = values @ columns
        likely = right * np.logaddexp(0, -logits) + (pixels - right) * np.logaddexp(0, logits)
        return float(likely.sum() + ((values - start) ** 2).sum() / 2)

    for _ in range(100):
        share = 1 / (1 + np.exp(-(weights @ columns)))
        gradient = columns @ (pixels * share - right) + (weights - start)
        curvature = (columns * (pixels * share * (1 - share))) @ columns.T + np.eye(len(columns))
        step = np.linalg.solve(curvature, gradient)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-12:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < 1e-9:
            break
    if weights[0] <= 0:
        raise ValueError("higher confidence does not mean that more pixels are right here.")
    return Scaling(float(1 / weights[0]), float(weights[1]) if offset else 0.0)


def reliability(evidence: Evidence, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Diagrams, calibration errors and scalings of the confidence, as plain values.

    The errors "after" are of images that the scaling was not fitted on.
    """
    totals = evidence.totals()
    before = diagram(CONFIDENCE, *totals)
    found: dict[str, Any] = {
        "groups": f"{GROUPS} groups with equal numbers of pixels",
        "calibration_error": calibration_error(before),
        "diagram": [asdict(group) for group in before],
    }
    for name, offset in (("temperature", False), ("temperature_and_offset", True)):
        try:
            scaling = fit_scaling(*totals, offset=offset)
            after = diagram(*_scaled_in_folds(evidence, offset=offset))
        except ValueError as error:
            found[name] = {"not_fitted": str(error)}
            continue
        found[name] = {
            **asdict(scaling),
            "calibration_error_after": calibration_error(after),
            "diagram_after": [asdict(group) for group in after],
        }
    found["classes"] = dict(_of_classes(evidence, class_names))
    return found


def _scaled_in_folds(evidence: Evidence, *, offset: bool) -> tuple[Floats, Counts, Counts]:
    """Scaled confidences with their right and counted pixels; each fold is scaled as the others say."""
    fold = folds_of(evidence.num_images)
    parts = []
    for each in range(int(fold.max()) + 1):
        scaling = fit_scaling(*evidence.only(fold != each).totals(), offset=offset)
        parts.append((scaling(CONFIDENCE), *evidence.only(fold == each).totals()))
    values, right, pixels = (np.concatenate(part) for part in zip(*parts, strict=True))
    return values, right, pixels


def _of_classes(evidence: Evidence, class_names: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, name in enumerate(class_names):
        right, pixels = (each.sum(axis=0) for each in evidence.of_class(index))
        if pixels.sum():
            groups = diagram(CONFIDENCE, right, pixels, _CLASS_GROUPS)
            yield name, {"calibration_error": calibration_error(groups), "diagram": [asdict(each) for each in groups]}
