"""Position embeddings for grids of another size than in training; each model family has its own rule."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
import torch.nn.functional as F
from torch import Tensor

from proxyclip.recipes.proxies import PositionRule


def interpolate_positions(
    positions: Tensor, from_hw: tuple[int, int], to_hw: tuple[int, int], rule: PositionRule
) -> Tensor:
    """Resize patch position embeddings bicubically from one grid to another.

    positions: (from_h * from_w, D), row-major. Returns (to_h * to_w, D), float32.

    rule "offset": by the factor (grid + 0.1) / native, without antialiasing, as ProxyCLIP does for CLIP and DINO. The
    sampling uses that factor, so the result differs from a resize to the same size.
    rule "antialias": by size, with antialiasing, as DINOv2 and timm. rule "size": by size, without, as MAE.
    """
    if from_hw == to_hw:
        return positions.float()
    grid = positions.float().T.reshape(1, -1, *from_hw)
    if rule == "offset":
        scale = ((to_hw[0] + 0.1) / from_hw[0], (to_hw[1] + 0.1) / from_hw[1])
        grid = F.interpolate(grid, scale_factor=scale, mode="bicubic", align_corners=False)
    else:
        grid = F.interpolate(grid, size=to_hw, mode="bicubic", align_corners=False, antialias=rule == "antialias")
    if grid.shape[2:] != torch.Size(to_hw):
        raise AssertionError(f"the position grid is {tuple(grid.shape[2:])}, but must be {to_hw}")
    return grid[0].flatten(1).T


class GridCache:
    """What a network computes from its weights for a grid of patches, kept for the last few grids.

    A resize of position embeddings takes a tenth of a GPU's time if every batch does it again.
    """

    def __init__(self, at_most: int = 8) -> None:
        self._at_most = at_most
        self._kept: dict[tuple[Hashable, ...], Tensor] = {}

    @torch.compiler.disable
    def get(self, weight: Tensor, grid_hw: tuple[int, int], make: Callable[[], Tensor]) -> Tensor:
        """`make()`, computed once for a grid and the present value, device and dtype of `weight`."""
        version = None if weight.is_inference() else weight._version
        key = (grid_hw, id(weight), version, weight.device, weight.dtype)
        kept = self._kept.pop(key, None)
        if kept is None:
            with torch.inference_mode(False), torch.no_grad():  # so that it serves with and without inference mode
                kept = make()
        self._kept[key] = kept  # the last used comes last
        if len(self._kept) > self._at_most:
            del self._kept[next(iter(self._kept))]
        return kept
