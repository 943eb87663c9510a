"""From the statistics of a corpus to a linear discriminant, and the choice of its settings without labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from proxyclip.models.adaptation.statistics import UNIT, Statistics

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """How a covariance becomes invertible.

    covariance: "within", of the patches about the means of their classes, or "total", about the mean of all. shrinkage:
    the share of it that is replaced by its mean diagonal.
    """

    covariance: str
    shrinkage: float


# What `choose` chooses from. On equal terms the first wins.
CANDIDATES = (
    Settings("within", 0.1),
    Settings("within", 0.02),
    Settings("within", 0.3),
    Settings("total", 0.1),
    Settings("total", 0.02),
)


@dataclass(frozen=True)
class Discriminant:
    """One row a class: its score is `weights @ x + bias`. weights: (K, E). bias: (K,)."""

    weights: Floats
    bias: Floats

    def scores(self, patches: Floats) -> Floats:
        """(N, E) to (N, K)."""
        return patches @ self.weights.T + self.bias


@dataclass(frozen=True)
class Moments:
    """Statistics as real numbers. mean: (E,), and second: (E, E), of all patches. means: (K, E) and share: (K,)."""

    mean: Floats
    second: Floats
    means: Floats
    share: Floats

    @classmethod
    def of(cls, statistics: Statistics) -> Moments:
        """Those of both halves. A class without any mass gets the mean of all."""
        mass = statistics.mass.sum(axis=0) * UNIT
        sums = statistics.sums.sum(axis=0) * UNIT
        weight = mass.sum()
        mean = sums.sum(axis=0) / weight
        rows, columns = np.triu_indices(statistics.dim)
        second = np.zeros((statistics.dim, statistics.dim))
        second[rows, columns] = second[columns, rows] = statistics.moments * (UNIT / weight)
        return cls(mean, second, class_means(mass, sums, mean), mass / weight)

    def covariance(self, settings: Settings) -> Floats:
        """The shrunk covariance (E, E). Raises numpy's LinAlgError if all patches are alike."""
        total = self.second - np.outer(self.mean, self.mean)
        found = total
        if settings.covariance == "within":
            apart = self.means - self.mean
            found = total - (apart.T * self.share) @ apart
        scale = found.diagonal().mean()
        if not scale > 1e-9:
            raise np.linalg.LinAlgError("the patches do not differ")
        return (1 - settings.shrinkage) * found + settings.shrinkage * scale * np.eye(len(found))


def class_means(mass: Floats, sums: Floats, otherwise: Floats) -> Floats:
    """sums (K, E) / mass (K,), and `otherwise`, (E,) or (K, E), for classes without mass."""
    found = mass > 1e-6
    return np.where(found[:, None], sums / np.where(found, mass, 1)[:, None], otherwise)


def discriminant(means: Floats, covariance: Floats) -> Discriminant:
    """The linear discriminant of classes with one covariance and equal priors: x S^-1 mu - mu S^-1 mu / 2."""
    weights = np.linalg.solve(covariance, means.T).T
    return Discriminant(weights, -(weights * means).sum(axis=1) / 2)


def agreement(statistics: Statistics, settings: Settings) -> float:
    """The share of the sample's patches to which two heads give the same class, each with the means of one half."""
    moments = Moments.of(statistics)
    covariance = moments.covariance(settings)
    patches = statistics.sample.patches.astype(np.float64)
    winners = []
    for half in (0, 1):
        means = class_means(statistics.mass[half] * UNIT, statistics.sums[half] * UNIT, moments.means)
        winners.append(discriminant(means, covariance).scores(patches).argmax(axis=1))
    return float((winners[0] == winners[1]).mean())


@dataclass(frozen=True)
class Choice:
    """The settings whose halves agree most, and how much the halves of each candidate agree."""

    settings: Settings
    tried: list[tuple[Settings, float]]

    def plain(self) -> dict[str, Any]:
        """As plain values, for the record."""
        return {
            **asdict(self.settings),
            "halves_agree": [[*asdict(each).values(), found] for each, found in self.tried],
        }


def choose(statistics: Statistics) -> Choice:
    """The candidate whose two halves of the corpus agree most on the sample's patches."""
    tried = [(each, round(agreement(statistics, each), 4)) for each in CANDIDATES]
    return Choice(max(tried, key=lambda each: each[1])[0], tried)
