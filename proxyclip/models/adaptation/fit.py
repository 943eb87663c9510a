"""From the statistics of a corpus to a linear discriminant, and the choice of its settings without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from proxyclip.models.adaptation.statistics import UNIT, Statistics

Floats = npt.NDArray[np.float64]


# Shares of the covariance that its mean diagonal may replace; `choose` chooses. On equal terms the first wins.
SHRINKAGES = (0.1, 0.02, 0.3)

# Exponent of the prior on the classes: with 1, classes that are nowhere in the corpus still get many pixels
# (docs/quality.md).
PRIOR = 2.0

# A class with less than this of the largest class's share counts as if it had so much.
_RARE = 1e-3


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
    """Statistics as real numbers.

    means: (K, E), of the patches of each class. within: (E, E), their covariance about these means.
    """

    means: Floats
    within: Floats

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
        means = class_means(mass, sums, mean)
        apart = means - mean
        return cls(means, second - np.outer(mean, mean) - (apart.T * (mass / weight)) @ apart)

    def covariance(self, shrinkage: float) -> Floats:
        """The shrunk covariance (E, E). Raises numpy's LinAlgError if all patches are alike."""
        scale = self.within.diagonal().mean()
        if not scale > 1e-9:
            raise np.linalg.LinAlgError("the patches do not differ")
        return (1 - shrinkage) * self.within + shrinkage * scale * np.eye(len(self.within))


def class_means(mass: Floats, sums: Floats, otherwise: Floats) -> Floats:
    """sums (K, E) / mass (K,), and `otherwise`, (E,) or (K, E), for classes without mass."""
    found = mass > 1e-6
    return np.where(found[:, None], sums / np.where(found, mass, 1)[:, None], otherwise)


def log_prior(statistics: Statistics) -> Floats:
    """(K,): `PRIOR` times the logarithm of each class's share of the images, beside the largest."""
    share = statistics.shares / statistics.shares.max()
    return PRIOR * np.log(np.maximum(share, _RARE))


def discriminant(means: Floats, covariance: Floats, prior: Floats) -> Discriminant:
    """The linear discriminant of classes with one covariance S: x S^-1 mu - mu S^-1 mu / 2 + prior.

    means: (K, E). prior: (K,), logarithms.
    """
    weights = np.linalg.solve(covariance, means.T).T
    return Discriminant(weights, prior - (weights * means).sum(axis=1) / 2)


def agreement(statistics: Statistics, shrinkage: float) -> float:
    """The share of the sample's patches to which two heads give the same class, each with the means of one half."""
    moments, prior = Moments.of(statistics), log_prior(statistics)
    covariance = moments.covariance(shrinkage)
    patches = statistics.sample.patches.astype(np.float64)
    winners = []
    for half in (0, 1):
        means = class_means(statistics.mass[half] * UNIT, statistics.sums[half] * UNIT, moments.means)
        winners.append(discriminant(means, covariance, prior).scores(patches).argmax(axis=1))
    return float((winners[0] == winners[1]).mean())


@dataclass(frozen=True)
class Choice:
    """The shrinkage whose halves agree most, and how much the halves of each candidate agree."""

    shrinkage: float
    tried: list[tuple[float, float]]

    def plain(self) -> dict[str, Any]:
        """As plain values, for the record."""
        return {"shrinkage": self.shrinkage, "halves_agree": [list(each) for each in self.tried], "prior": PRIOR}


def choose(statistics: Statistics) -> Choice:
    """The candidate whose two halves of the corpus agree most on the sample's patches."""
    tried = [(each, round(agreement(statistics, each), 4)) for each in SHRINKAGES]
    return Choice(max(tried, key=lambda each: each[1])[0], tried)
