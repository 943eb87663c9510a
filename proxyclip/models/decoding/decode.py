"""From dense features and text embeddings to labels, never holding queries x height x width."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from proxyclip.models.decoding.queries import Queries
from proxyclip.models.windows import AxisPlan, WindowPlan, stitch_matrix

# Logits held at once. On a CPU they stay in its cache (4 MB of float32); a GPU wants long kernels (512 MB).
LOGITS_AT_ONCE = {"cpu": 2**20, "cuda": 2**27}


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
    queries: Queries,
    *,
    logit_scale: float,
    refine: Callable[[Tensor], Tensor] | None = None,
    area_threshold: float = 0.0,
    background: int | None = None,
    logits_at_once: int | None = None,
) -> Decoded:
    """Softmax over all queries, the maximum over the queries of a class, the argmax over classes.

    features: (rows, columns, grid_h, grid_w, E) unit features of the window grid.
    refine: applied to the cosines (queries, H, W) of some queries at a time, before softmax; it must treat each
    query by itself. Labels are taken after upsampling. Ties go to the class that comes first.
    area_threshold: a class other than `background` whose share of all pixels that are not background is at most this
    cannot win, and labels are taken again (SCLIP, 2312.01597, on VOC21); its probability still counts in the softmax.
    logits_at_once: bound on the logits held together, that of the device if None; all queries of a pixel are the least.
    """
    device = features.device.type
    at_once = logits_at_once or LOGITS_AT_ONCE.get(device, LOGITS_AT_ONCE["cuda"])
    stitch = _Stitch.of(features, plan)

    def decode(allowed: Tensor | None) -> Decoded:
        if refine is None:
            return _decode_tiles(stitch, queries, logit_scale, allowed, at_once)
        maps_at_once = at_once * 16 if device == "cpu" else at_once  # 64 MB; maps of whole images are past any cache
        return _decode_maps(stitch, queries, allowed, maps_at_once, lambda maps: logit_scale * refine(maps))

    decoded = decode(allowed=None)
    if area_threshold == 0 or background is None:
        return decoded
    return decode(allowed=_large_enough(decoded.winner, queries.classes.count, background, area_threshold))


def dense_logits(features: Tensor, plan: WindowPlan, text_embeddings: Tensor) -> Tensor:
    """Cosines of all queries at once, (Q, H, W) float32: the plain result, without the memory bound."""
    return _Stitch.of(features, plan).maps(text_embeddings)


@dataclass(frozen=True, eq=False)
class _Axis:
    """The matrix (pixels, columns) of an axis of the stitch, on the device, and which of it is not zero, on the CPU.

    A GPU is never asked what the next step has to know.
    """

    matrix: Tensor
    nonzero: Tensor

    def used(self, pixels: slice) -> Tensor:
        """The columns that some pixels see, on the CPU."""
        return self.nonzero[pixels].any(dim=0).nonzero().flatten()


@lru_cache(maxsize=32)  # images of a corpus share a few sizes
def _axis(plan: AxisPlan, grid: int, whole: bool, device: torch.device) -> _Axis:
    with torch.inference_mode(False):
        matrix = stitch_matrix(plan, grid, whole)
        return _Axis(matrix.to(device), matrix != 0)


@dataclass(frozen=True, eq=False)
class _Stitch:
    """The windows' grids laid side by side, and the matrices that take them to pixels.

    grid: (rows * grid_h, columns * grid_w, E). y: (H, rows * grid_h). x: (W, columns * grid_w).
    """

    grid: Tensor
    y: _Axis
    x: _Axis

    @classmethod
    def of(cls, features: Tensor, plan: WindowPlan) -> _Stitch:
        rows, columns, grid_h, grid_w, width = features.shape
        return cls(
            features.permute(0, 2, 1, 3, 4).reshape(rows * grid_h, columns * grid_w, width),
            _axis(plan.y, grid_h, plan.whole, features.device),
            _axis(plan.x, grid_w, plan.whole, features.device),
        )

    @property
    def image_hw(self) -> tuple[int, int]:
        return self.y.matrix.shape[0], self.x.matrix.shape[0]

    def maps(self, text_embeddings: Tensor) -> Tensor:
        """Cosines of all pixels, query by query: (Q, H, W)."""
        return self.y.matrix @ ((self.grid @ text_embeddings.T).permute(2, 0, 1) @ self.x.matrix.T)

    def tiles(self, queries: Queries, scale: float, at_once: int) -> Iterator[tuple[slice, slice, Tensor]]:
        """Scaled cosines of all pixels, tile by tile: rows, columns and (h, w, Q), at most `at_once` or one pixel's.

        A row of pixels sees few rows of the grid. These are projected to queries and brought to the width of the
        tile once, and kept while the tiles below need them.
        """
        height, width = self.image_hw
        embeddings = (scale * queries.columns).T.contiguous()  # (E, Q)
        h, w = self._tile_hw(at_once // len(queries.columns))
        for left in range(0, width, w):
            columns = slice(left, left + w)
            used_x = self.x.used(columns)
            to_x = self.x.matrix[columns, used_x]
            seen, wide = torch.empty(0, dtype=torch.int64), self.grid.new_empty(0, len(to_x), embeddings.shape[1])
            for top in range(0, height, h):
                rows = slice(top, top + h)
                used_y = self.y.used(rows)
                kept, new = torch.isin(seen, used_y), used_y[~torch.isin(used_y, seen)]
                if len(new):
                    more = to_x @ (self.grid[new][:, used_x] @ embeddings)  # (new, w, Q)
                    seen, wide = torch.cat([seen[kept], new]), torch.cat([wide[kept], more])
                tile = (self.y.matrix[rows, seen] @ wide.flatten(1)).unflatten(1, wide.shape[1:])
                for column, twin in queries.twins:
                    # Equal queries in different columns of a product may round differently, and a tie would be none.
                    tile[..., column] = tile[..., twin]
                yield rows, columns, tile

    def _tile_hw(self, pixels: int) -> tuple[int, int]:
        """Height and width of a tile that has at most `pixels` pixels, and sees no more rows of the grid than that."""
        height, width = self.image_hw
        seen_by_one = int(self.y.nonzero.sum(dim=1).max())
        w = max(min(width, pixels // seen_by_one), 1)
        h = max(min(height, pixels // w), 1)
        while h > 1 and max(len(self.y.used(slice(top, top + h))) for top in range(0, height, h)) * w > pixels:
            h = (h + 1) // 2
        return h, w


def _decode_tiles(
    stitch: _Stitch, queries: Queries, logit_scale: float, allowed: Tensor | None, at_once: int
) -> Decoded:
    """Tile by tile, all queries of a pixel side by side."""
    decoded = _empty(stitch)
    for rows, columns, logits in stitch.tiles(queries, logit_scale, at_once):
        by_class = queries.classes.maximum(logits)
        peak = by_class.amax(dim=-1, keepdim=True)
        if allowed is not None:
            by_class = by_class.masked_fill(~allowed[queries.classes.order], -torch.inf)
        best, index = by_class.max(dim=-1, keepdim=True)
        winner = queries.classes.winner(by_class, best, index)
        second = _runner_up(by_class, index, dim=-1)
        total = (logits - peak).exp_().sum(dim=-1, keepdim=True)
        confidence = (best - peak).exp_() / total
        decoded.winner[rows, columns] = winner[..., 0]
        decoded.confidence[rows, columns] = confidence[..., 0]
        decoded.margin[rows, columns] = (confidence * (1 - (second - best).exp_()))[..., 0]
    return decoded


def _decode_maps(
    stitch: _Stitch,
    queries: Queries,
    allowed: Tensor | None,
    at_once: int,
    logits_of: Callable[[Tensor], Tensor],
) -> Decoded:
    """Class by class over the whole image, since refinement takes each map with its neighbours."""
    height, width = stitch.image_hw
    device = stitch.grid.device
    pixels = max(height, stitch.grid.shape[0]) * max(width, stitch.grid.shape[1])  # a tiny image has more patches
    best = torch.full((height, width), -torch.inf, device=device)
    second, peak = best.clone(), best.clone()  # peak: of all classes
    total = torch.zeros(height, width, device=device)  # sum over queries of exp(logit - peak)
    winner = torch.zeros(height, width, dtype=torch.int32, device=device)
    for some, members in queries.classes.chunks(at_once // pixels):
        logits = logits_of(stitch.maps(queries.embeddings[some]))
        by_class = _map_maximum(logits, queries.classes.counts[members])
        top, index = by_class.max(dim=0, keepdim=True)
        new_peak = torch.maximum(peak, top[0])
        total = total * (peak - new_peak).exp_() + (logits - new_peak).exp_().sum(dim=0)
        peak = new_peak
        if allowed is not None:
            by_class = by_class.masked_fill(~allowed[members, None, None], -torch.inf)
            top, index = by_class.max(dim=0, keepdim=True)
        runner_up = _runner_up(by_class, index, dim=0)[0]
        second = torch.maximum(torch.maximum(second, runner_up), torch.minimum(best, top[0]))
        winner = torch.where(top[0] > best, (index[0] + members.start).int(), winner)
        best = torch.maximum(best, top[0])
    confidence = (best - peak).exp_() / total
    return Decoded(winner, confidence, confidence * (1 - (second - best).exp_()))


def _runner_up(by_class: Tensor, winner: Tensor, dim: int) -> Tensor:
    """The second largest along `dim`, kept as a dimension; -inf where there is no second."""
    at_winner = by_class.gather(dim, winner)
    second = by_class.scatter_(dim, winner, -torch.inf).amax(dim=dim, keepdim=True)
    by_class.scatter_(dim, winner, at_winner)
    return second


def _map_maximum(logits: Tensor, counts: Sequence[int]) -> Tensor:
    """Maximum over the queries of each class: (Q, H, W) to (len(counts), H, W)."""
    if len(counts) == logits.shape[0]:
        return logits
    return torch.stack([part.amax(dim=0) for part in logits.split(list(counts))])


def _empty(stitch: _Stitch) -> Decoded:
    shape, device = stitch.image_hw, stitch.grid.device
    return Decoded(
        torch.empty(shape, dtype=torch.int32, device=device),
        torch.empty(shape, device=device),
        torch.empty(shape, device=device),
    )


def _large_enough(winner: Tensor, num_classes: int, background: int, area_threshold: float) -> Tensor:
    """(num_classes,) bool: the background, and the classes above their share of what is not background."""
    areas = torch.bincount(winner.flatten(), minlength=num_classes)
    areas[background] = 0
    allowed = areas > area_threshold * areas.sum()
    allowed[background] = True
    return allowed
