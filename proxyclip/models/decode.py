"""From dense features and text embeddings to labels, never holding queries x height x width."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from proxyclip.models.windows import WindowPlan, stitch_matrix

# Logits held at once; 2**24 float32 values are 64 MB.
LOGITS_AT_ONCE = 2**24


@dataclass(frozen=True)
class Decoded:
    """Per pixel of the original image: the winning class (H, W) int32, its probability, and the lead over
    the second class, both (H, W) float32."""

    winner: Tensor
    confidence: Tensor
    margin: Tensor


def decode_features(
    features: Tensor,
    plan: WindowPlan,
    text_embeddings: Tensor,
    query_class: Tensor,
    *,
    logits_at_once: int | None = None,
    logit_scale: float,
    refine: Callable[[Tensor], Tensor] | None = None,
) -> Decoded:
    """Softmax over all queries, the maximum over the queries of a class, the argmax over classes.

    features: (rows, columns, grid_h, grid_w, E) unit features of the window grid.
    text_embeddings: (Q, E) unit rows. query_class: (Q,) class of each query, ascending from 0.
    refine: applied to the cosines (queries, H, W) of some queries at a time, before softmax; it must treat each
    query by itself. Labels are taken after upsampling. Ties go to the class that comes first.
    logits_at_once: bound on the logits held together, LOGITS_AT_ONCE if None; a row of pixels times the queries of a
    class is the least.
    """
    grid, to_y, to_x = _stitching(features, plan)
    height, width = to_y.shape[0], to_x.shape[0]
    pixels = max(height, to_y.shape[1]) * max(width, to_x.shape[1])  # the grid has more patches than a tiny image
    logits_at_once = logits_at_once or LOGITS_AT_ONCE
    chunks = list(_class_chunks(query_class, logits_at_once // pixels))
    largest = max(stop - start for start, stop, _, _ in chunks)
    rows_at_once = height if refine else max(logits_at_once // (width * largest), 1)  # neighbours cross strips
    winner = torch.empty(height, width, dtype=torch.int32, device=grid.device)
    confidence = torch.empty(height, width, device=grid.device)
    margin = torch.empty_like(confidence)
    for top in range(0, height, rows_at_once):
        rows = slice(top, top + rows_at_once)
        winner[rows], confidence[rows], margin[rows] = _decode_strip(
            grid, to_y[rows], to_x, text_embeddings, query_class, chunks, logit_scale, refine
        )
    return Decoded(winner, confidence, margin)


def dense_logits(features: Tensor, plan: WindowPlan, text_embeddings: Tensor) -> Tensor:
    """Cosines of all queries at once, (Q, H, W) float32: the plain result, without the memory bound."""
    grid, to_y, to_x = _stitching(features, plan)
    return _stitch(grid, to_y, to_x, text_embeddings)


def _stitching(features: Tensor, plan: WindowPlan) -> tuple[Tensor, Tensor, Tensor]:
    """The windows' grids laid side by side (rows * grid_h, columns * grid_w, E), and the matrices that stitch them."""
    rows, columns, grid_h, grid_w, width = features.shape
    to_y = stitch_matrix(plan.y, grid_h, plan.whole).to(features.device)  # (H, rows * grid_h)
    to_x = stitch_matrix(plan.x, grid_w, plan.whole).to(features.device)  # (W, columns * grid_w)
    return features.permute(0, 2, 1, 3, 4).reshape(rows * grid_h, columns * grid_w, width), to_y, to_x


def _stitch(grid: Tensor, to_y: Tensor, to_x: Tensor, text_embeddings: Tensor) -> Tensor:
    """Project to queries on the grid, then to pixels: (Q, H, W)."""
    return to_y @ ((grid @ text_embeddings.T).permute(2, 0, 1) @ to_x.T)


def _class_chunks(query_class: Tensor, wanted: int) -> Iterator[tuple[int, int, int, int]]:
    """Runs of queries (start, stop) of whole classes (first, last + 1), near `wanted` queries each."""
    counts = torch.bincount(query_class).tolist()
    start = first = stop = 0
    for index, count in enumerate(counts):
        if stop > start and stop + count - start > wanted:
            yield start, stop, first, index
            start, first = stop, index
        stop += count
    yield start, stop, first, len(counts)


def _decode_strip(
    grid: Tensor,
    to_y: Tensor,
    to_x: Tensor,
    text_embeddings: Tensor,
    query_class: Tensor,
    chunks: list[tuple[int, int, int, int]],
    logit_scale: float,
    refine: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of the image that `to_y` gives: winner, confidence, margin, each (rows, W)."""
    used = to_y.any(dim=0).nonzero()  # a strip of pixels sees few rows of the grid
    low, high = int(used.min()), int(used.max()) + 1
    shape = (to_y.shape[0], to_x.shape[0])
    best = torch.full(shape, -torch.inf, device=grid.device)
    second = best.clone()
    total = torch.zeros(shape, device=grid.device)  # sum over queries of exp(logit - best)
    winner = torch.zeros(shape, dtype=torch.int64, device=grid.device)
    for start, stop, first, last in chunks:
        cosines = _stitch(grid[low:high], to_y[:, low:high], to_x, text_embeddings[start:stop])
        logits = logit_scale * (refine(cosines) if refine else cosines)
        by_class = _class_maximum(logits, query_class[start:stop] - first, last - first)
        top, index = by_class.max(dim=0)
        runner_up = by_class.scatter(0, index[None], -torch.inf).amax(dim=0)
        new_best = torch.maximum(best, top)
        total = total * (best - new_best).exp() + (logits - new_best).exp_().sum(dim=0)
        second = torch.maximum(torch.maximum(second, runner_up), torch.minimum(best, top))
        winner = torch.where(top > best, index + first, winner)
        best = new_best
    confidence = 1 / total
    return winner, confidence, confidence * (1 - (second - best).exp())


def _class_maximum(logits: Tensor, query_class: Tensor, num_classes: int) -> Tensor:
    """Maximum over the queries of each class: (Q, H, W) to (num_classes, H, W)."""
    if num_classes == logits.shape[0]:
        return logits
    counts = torch.bincount(query_class, minlength=num_classes).tolist()
    return torch.stack([part.amax(dim=0) for part in logits.split(counts)])
