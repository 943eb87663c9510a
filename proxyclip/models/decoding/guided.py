"""Guided filter: class probabilities of a coarse grid, carried to the pixels along the colours of the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# A variance of colours in [0, 1]; differences below it are no edge.
EPS = 1e-4


@dataclass(frozen=True, eq=False)
class GuidedFilter:
    """The guided filter with colour (He, Sun and Tang, ECCV 2010), fitted on a coarse grid (He and Sun, 1505.00996).

    Around every cell of the grid, each map is fitted as a linear function of the three colours. The fits around a cell
    are averaged, resized to the pixels and applied to their colours.

    pixels: (3, H, W) in [0, 1]. cells: (3, h, w), the same image on the grid. mean: (3, h, w), of the cells in the
    square around each. inverse: (h, w, 3, 3), of their covariance plus EPS. radius: of a square, in cells.
    """

    pixels: Tensor
    cells: Tensor
    mean: Tensor
    inverse: Tensor
    radius: int

    @classmethod
    def of(cls, image: Tensor, grid_hw: tuple[int, int], image_hw: tuple[int, int], radius: int) -> GuidedFilter:
        """image: (3, h, w) in [0, 1], of any size. grid_hw: size of the maps. image_hw: size of the result."""
        pixels = F.interpolate(image[None], size=image_hw, mode="bilinear", align_corners=False)[0]
        cells = F.interpolate(image[None], size=grid_hw, mode="area")[0]
        mean = _box_mean(cells, radius)
        products = _box_mean((cells[:, None] * cells).flatten(0, 1), radius).unflatten(0, (3, 3))
        covariance = (products - mean[:, None] * mean).permute(2, 3, 0, 1) + EPS * torch.eye(3, device=image.device)
        return cls(pixels, cells, mean, torch.linalg.inv(covariance.double()).float(), radius)

    def __call__(self, maps: Tensor) -> Tensor:
        """Filter each map by itself: (K, h, w) to (K, H, W)."""
        fits = self._fit(maps)
        fits = F.interpolate(fits, size=self.pixels.shape[1:], mode="bilinear", align_corners=False)
        filtered = fits[:, 3]
        for colour, values in enumerate(self.pixels):
            filtered.addcmul_(fits[:, colour], values)
        return filtered

    def best_classes(self, maps: Tensor, allowed: Tensor | None, at_once: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of the filtered maps (K, h, w), for every pixel: the largest one's index, its value, its lead on the second.

        allowed: (K,) bool, which may win. at_once: bound on the numbers held together; at least those of a map. Values
        are limited to 0..1: the fits overshoot a little.
        """
        height, width = self.pixels.shape[1:]
        best = maps.new_full((height, width), -torch.inf)
        second = torch.zeros_like(best)
        winner = torch.zeros_like(best, dtype=torch.int32)
        size = max(at_once // (5 * height * width), 1)
        for first in range(0, len(maps), size):
            filtered = self(maps[first : first + size])
            if allowed is not None:
                filtered.masked_fill_(~allowed[first : first + size, None, None], -torch.inf)
            top, index = filtered.max(dim=0)
            runner_up = filtered.scatter_(0, index[None], -torch.inf).amax(dim=0)
            second = torch.maximum(torch.maximum(second, runner_up), torch.minimum(best, top))
            winner = torch.where(top > best, (index + first).int(), winner)
            best = torch.maximum(best, top)
        confidence = best.clamp(0, 1)
        return winner, confidence, confidence - second.clamp(max=1).minimum(confidence)

    def _fit(self, maps: Tensor) -> Tensor:
        """The averaged fits of maps (K, h, w): (K, 4, h, w), the slopes of the colours and the offset."""
        mean = _box_mean(maps, self.radius)
        cross = _box_mean((maps[:, None] * self.cells).flatten(0, 1), self.radius).unflatten(0, (-1, 3))
        cross -= mean[:, None] * self.mean
        slopes = torch.einsum("kchw,hwcd->kdhw", cross, self.inverse)
        offset = mean - (slopes * self.mean).sum(dim=1)
        fits = torch.cat([slopes, offset[:, None]], dim=1)
        return _box_mean(fits.flatten(0, 1), self.radius).unflatten(0, (-1, 4))


def _box_mean(maps: Tensor, radius: int) -> Tensor:
    """The mean of maps (N, h, w) over the square around each cell, as far as it lies in the image."""
    for size, pad in (((1, 2 * radius + 1), (0, radius)), ((2 * radius + 1, 1), (radius, 0))):
        maps = F.avg_pool2d(maps, size, stride=1, padding=pad, count_include_pad=False)
    return maps
