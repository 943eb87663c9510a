"""The stitch of an image: from the grids of its windows to the pixels of its labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from proxyclip.models.decoding.queries import Queries
from proxyclip.models.features import Features, StoredFeatures
from proxyclip.models.windows import AxisPlan, WindowPlan, merged_cells, resize_rows, stitch_matrix


@dataclass(frozen=True, eq=False)
class Axis:
    """The stitch of one axis.

    matrix: (pixels, grid cells), on the device. nonzero: the same shape, on the CPU, so that the loop over tiles never
    waits for a GPU.
    """

    matrix: Tensor
    nonzero: Tensor

    def used(self, pixels: slice) -> Tensor:
        """The grid cells that some pixels depend on: indices on the CPU."""
        return self.nonzero[pixels].any(dim=0).nonzero().flatten()


@lru_cache(maxsize=32)  # the images of a corpus have few different sizes
def _axis(plan: AxisPlan, grid: int, whole: bool, merged: bool, device: torch.device, size: int | None) -> Axis:
    with torch.inference_mode(False):
        matrix = stitch_matrix(plan, grid, whole)
        if merged:
            cells = torch.tensor(merged_cells(plan, grid, whole))
            matrix = matrix.new_zeros(len(matrix), int(cells.max()) + 1).index_add_(1, cells, matrix)
        if size is not None:
            matrix = resize_rows(matrix, size)
        return Axis(matrix.to(device), matrix != 0)


@dataclass(frozen=True, eq=False)
class Stitch:
    """The grids of all windows side by side, and the matrices from them to pixels.

    grid: (rows * grid_h, columns * grid_w, E). y: (H, rows * grid_h). x: (W, columns * grid_w). Of stored features the
    grid has the merged cells only, and E is the number of components of their basis.
    """

    grid: Tensor
    y: Axis
    x: Axis

    @classmethod
    def of(cls, features: Features, size_hw: tuple[int, int] | None = None) -> Stitch:
        """The stitch of an image's features, to labels of the original's size or of `size_hw`."""
        plan = features.plan
        if isinstance(features, StoredFeatures):
            return cls._of(features.coefficients, plan, features.grid_hw, size_hw, merged=True)
        rows, columns, grid_h, grid_w, dim = features.features.shape
        cells = features.features.permute(0, 2, 1, 3, 4).reshape(rows * grid_h, columns * grid_w, dim)
        return cls._of(cells, plan, (grid_h, grid_w), size_hw, merged=False)

    @classmethod
    def _of(
        cls,
        cells: Tensor,
        plan: WindowPlan,
        grid_hw: tuple[int, int],
        size_hw: tuple[int, int] | None,
        *,
        merged: bool,
    ) -> Stitch:
        y, x = (
            _axis(axis, grid, plan.whole, merged, cells.device, size)
            for axis, grid, size in zip((plan.y, plan.x), grid_hw, size_hw or (None, None), strict=True)
        )
        return cls(cells, y, x)

    @property
    def image_hw(self) -> tuple[int, int]:
        """Size of the labels in pixels."""
        return self.y.matrix.shape[0], self.x.matrix.shape[0]

    def maps(self, text_embeddings: Tensor, bias: Tensor | None = None) -> Tensor:
        """The cosine of every pixel with every query, plus the query's bias: (Q, H, W)."""
        maps = self.y.matrix @ ((self.grid @ text_embeddings.T).permute(2, 0, 1) @ self.x.matrix.T)
        return maps if bias is None else maps.add_(bias[:, None, None])

    def tiles(self, queries: Queries, scale: float, at_once: int) -> Iterator[tuple[slice, slice, Tensor]]:
        """The scaled logits of every pixel with every query, tile by tile: its rows, its columns, and (h, w, Q).

        A logit is a cosine plus the bias of its query.

        A tile has at most `at_once` cosines, or one pixel. A row of pixels depends on few rows of the grid. These are
        multiplied with the queries and resized to the tile's width once, and kept for the tiles below.
        """
        height, width = self.image_hw
        embeddings = (scale * queries.columns).T.contiguous()  # (E, Q)
        bias = None if queries.column_bias is None else scale * queries.column_bias
        h, w = self._tile_hw(at_once // len(queries.columns))
        if self.grid.is_cuda and h >= height and w >= width:  # leaving cells out costs a GPU more than it saves
            wide = self.x.matrix @ (self.grid @ embeddings)
            tile = (self.y.matrix @ wide.flatten(1)).unflatten(1, wide.shape[1:])
            yield slice(0, height), slice(0, width), _finished(tile, bias, queries)
            return
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
                yield rows, columns, _finished(tile, bias, queries)

    def _tile_hw(self, pixels: int) -> tuple[int, int]:
        """Height and width of a tile: at most `pixels` pixels, and at most as many kept cells (grid rows x width)."""
        height, width = self.image_hw
        if height * width <= pixels and len(self.y.nonzero[0]) * width <= pixels:
            return height, width
        seen_by_one = int(self.y.nonzero.sum(dim=1).max())
        w = max(min(width, pixels // seen_by_one), 1)
        h = max(min(height, pixels // w), 1)
        while h > 1 and max(len(self.y.used(slice(top, top + h))) for top in range(0, height, h)) * w > pixels:
            h = (h + 1) // 2
        return h, w


def _finished(tile: Tensor, bias: Tensor | None, queries: Queries) -> Tensor:
    """The logits of a tile (h, w, Q) with their bias, equal ones for equal queries."""
    if bias is not None:
        tile += bias
    for column, twin in queries.twins:
        # A product may round equal queries differently in different columns; then they would not tie.
        tile[..., column] = tile[..., twin]
    return tile
