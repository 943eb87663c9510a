"""Presence: which classes are in the image at all, from class probabilities on a coarse grid of the whole image."""

from __future__ import annotations

import torch
from torch import Tensor

from proxyclip.models.decoding.queries import Queries
from proxyclip.models.decoding.stitch import Stitch
from proxyclip.models.features import Features

# Logits held at once. It is fixed, because the size of a product decides how it rounds: presence must be the same
# however much memory there is.
_LOGITS_AT_ONCE = 2**20


def coarse_hw(features: Features) -> tuple[int, int]:
    """Height and width of the grid with about one cell per patch: the resized image, divided by the patch."""
    plan = features.plan
    height, width = (
        max(round(axis.resized * grid / axis.padded), 1)
        for axis, grid in zip((plan.y, plan.x), features.grid_hw, strict=True)
    )
    return height, width


def coarse_probabilities(
    features: Features, queries: Queries, logit_scale: float, prior: Tensor | None = None
) -> Tensor:
    """Class probabilities at the centres of the cells: (h, w, K). Softmax over queries, maximum over each class.

    queries: for these features (`Queries.projected`). prior: (Q,), added to the logits of each query.
    """
    height, width = coarse_hw(features)
    stitch = Stitch.of(features, (height, width))
    classes = queries.classes
    found = stitch.grid.new_empty(height, width, classes.count)
    for rows, columns, logits in stitch.tiles(queries, logit_scale, _LOGITS_AT_ONCE):
        if prior is not None:
            logits += prior[classes.columns]
        found[rows, columns] = classes.maximum(logits.softmax(dim=-1))
    return found if classes.ordered else found[..., classes.order.argsort()]


def presence(probabilities: Tensor) -> Tensor:
    """How much of the image each class has: the mean of its probabilities (h, w, K) over the grid, (K,), above 0."""
    mean = probabilities.flatten(0, 1).double().mean(dim=0)
    return mean.clamp(min=torch.finfo(torch.float32).tiny)


def most_present(score: Tensor, active: int, background: int | None) -> list[int]:
    """The `active` classes of the highest scores (K,), and the background: ascending. Of equal ones the first."""
    chosen = score.argsort(descending=True, stable=True)[:active].tolist()
    return sorted({*chosen, background} - {None})
