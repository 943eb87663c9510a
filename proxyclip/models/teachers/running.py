"""Labels from the maps of one class after the other, in the memory of a few maps."""

from __future__ import annotations

import torch
from torch import Tensor

from proxyclip.models.decoding.decode import Decoded


class RunningLabels:
    """The labels of an image, from a map of probabilities for each class. It holds four maps, however many classes."""

    def __init__(self, image_hw: tuple[int, int], device: torch.device) -> None:
        self._winner = torch.zeros(image_hw, dtype=torch.int32, device=device)
        self._best = torch.zeros(image_hw, device=device)
        self._second = torch.zeros(image_hw, device=device)

    def add(self, index: int, scores: Tensor) -> None:
        """Add a class: (H, W) float32 from 0 to 1. Classes come in ascending order; of equal ones the first wins."""
        wins = scores > self._best
        torch.maximum(self._second, torch.minimum(self._best, scores), out=self._second)
        torch.maximum(self._best, scores, out=self._best)
        self._winner.masked_fill_(wins, index)

    def decoded(self) -> Decoded:
        """The labels of the classes so far."""
        return Decoded(self._winner, self._best, self._best - self._second)
