"""Region votes: all pixels of a region get the class with the highest mean probability in it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RegionVotes:
    """The votes of an image.

    regions: (H, W), the region of each pixel, -1 for none. shares: (R, K), the mean class probabilities of each.
    """

    regions: Tensor
    shares: Tensor

    @classmethod
    def of(cls, regions: Tensor, probabilities: Tensor) -> RegionVotes:
        """regions: (H, W), numbered from 0; -1 for none. probabilities: (h, w, K) on a grid over the same image.

        Every pixel votes with the probabilities of its cell. Sums are taken in a fixed order on every device.
        """
        cells, region = _cells(regions.shape, probabilities.shape[:2], regions.device), regions.flatten().long()
        inside = region >= 0
        num_cells = probabilities.shape[0] * probabilities.shape[1]
        pairs, pixels = (region * num_cells + cells)[inside].unique(return_counts=True)  # ascending, so by region
        number = int(region.max()) + 1
        pairs_of_region = torch.bincount(pairs // num_cells, minlength=number)
        votes = probabilities.flatten(0, 1)[pairs % num_cells] * pixels[:, None]
        shares = torch.segment_reduce(votes, "sum", lengths=pairs_of_region, axis=0)
        pixels_of_region = torch.bincount(region[inside], minlength=number).clamp(min=1)
        return cls(regions, shares / pixels_of_region[:, None])

    @property
    def everywhere(self) -> bool:
        """Whether every pixel is in a region."""
        return bool((self.regions >= 0).all())

    def best_classes(self, allowed: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """For every pixel (H, W) in a region: the winning class, its share and its lead; anything elsewhere."""
        shares = self.shares if allowed is None else self.shares.masked_fill(~allowed, -torch.inf)
        best, winner = shares.max(dim=1)
        second = shares.scatter(1, winner[:, None], -torch.inf).amax(dim=1).clamp(min=0)
        at = self.regions.clamp(min=0).long()
        return winner.int()[at], best[at], (best - second)[at]


def _cells(image_hw: torch.Size, grid_hw: torch.Size, device: torch.device) -> Tensor:
    """The cell that each pixel lies in: (H * W,)."""
    y, x = (
        ((2 * torch.arange(pixels, device=device) + 1) * cells) // (2 * pixels)
        for pixels, cells in zip(image_hw, grid_hw, strict=True)
    )
    return (y[:, None] * grid_hw[1] + x).flatten()
