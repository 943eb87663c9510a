"""The rows of a head: the discriminant for classes with evidence, the text embeddings for the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from proxyclip.models.adaptation.fit import Discriminant, Floats

# A corpus of so many images trusts its discriminant. One of fewer mixes it with the text, in proportion.
ENOUGH_IMAGES = 32

_RIDGE = 1e-3


@dataclass(frozen=True)
class Text:
    """The text embeddings (Q, E) of K classes, times the scale of the logits. query_class: (Q,), ascending."""

    rows: Floats
    query_class: npt.NDArray[np.int64]

    def scores(self, patches: Floats) -> Floats:
        """The largest logit of each class: (N, E) to (N, K)."""
        return _largest(patches @ self.rows.T, self.query_class)


@dataclass(frozen=True)
class Rows:
    """weights: (R, E). bias: (R,). row_class: (R,), ascending."""

    weights: Floats
    bias: Floats
    row_class: npt.NDArray[np.int64]

    def scores(self, patches: Floats) -> Floats:
        """The largest score of each class: (N, E) to (N, K)."""
        return _largest(patches @ self.weights.T + self.bias, self.row_class)


def _largest(scores: Floats, of_class: npt.NDArray[np.int64]) -> Floats:
    """Of scores (N, R), the largest of each class: (N, K). of_class: (R,), ascending."""
    return np.maximum.reduceat(scores, np.flatnonzero(np.diff(of_class, prepend=-1)), axis=1)


def text_rows(text: Text) -> Rows:
    """Those that label exactly as the text does."""
    return Rows(text.rows, np.zeros(len(text.rows)), text.query_class)


def head_rows(
    found: Discriminant, text: Text, adapted: npt.NDArray[np.bool_], patches: Floats, trust: float = 1.0
) -> Rows:
    """The rows of a head.

    A class that is not adapted keeps its text embeddings. Their logits are brought to the scale and the level that the
    adapted classes' scores have beside their own text logits, by least squares over some patches (N, E).
    adapted: (K,), two classes at least. trust: share of the discriminant; the rest of each score is the text's.
    """
    scores, logits = found.scores(patches)[:, adapted], text.scores(patches)[:, adapted]
    level, text_level = scores.mean(axis=1, keepdims=True), logits.mean(axis=1, keepdims=True)
    spread = ((logits - text_level) ** 2).sum()
    slope = ((scores - level) * (logits - text_level)).sum() / spread if spread > 0 else 1.0
    slope = max(float(slope), 0.0)
    # The mean score of the adapted classes is linear in a patch; that of their largest text logits nearly so.
    common = found.weights[adapted].mean(axis=0), found.bias[adapted].mean()
    text_common = _regression(patches, text_level[:, 0])
    weights, bias, row_class = [], [], []
    for index, is_adapted in enumerate(adapted):
        own = text.rows[text.query_class == index]
        if is_adapted:
            rows, offsets = found.weights[index][None], found.bias[index][None]
            if trust < 1:
                rows, offsets = np.repeat(rows, len(own), axis=0), np.repeat(offsets, len(own))
        else:
            rows = slope * (own - text_common[0]) + common[0]
            offsets = np.full(len(own), common[1] - slope * text_common[1])
        if trust < 1:
            rows, offsets = trust * rows + (1 - trust) * own, trust * offsets
        weights.append(rows)
        bias.append(offsets)
        row_class += [index] * len(rows)
    return Rows(np.concatenate(weights), np.concatenate(bias), np.array(row_class, np.int64))


def _regression(patches: Floats, values: Floats) -> tuple[Floats, float]:
    """Weights (E,) and offset of the ridge regression of values (N,) on patches (N, E)."""
    mean, level = patches.mean(axis=0), values.mean()
    apart = patches - mean
    gram = apart.T @ apart
    gram += (_RIDGE * max(gram.diagonal().mean(), 1e-12)) * np.eye(len(gram))
    weights = np.linalg.solve(gram, apart.T @ (values - level))
    return weights, float(level - weights @ mean)
