"""Components: the connected regions of a class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Component:
    """A connected region. top, left: its bounding box's corner. inside: (h, w), the region in its bounding box."""

    top: int
    left: int
    area: int
    inside: npt.NDArray[np.bool_]

    def where(self, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
        """The region in its image of that shape (H, W), column after column as COCO stores it."""
        whole = np.zeros(shape, bool, order="F")
        height, width = self.inside.shape
        whole[self.top : self.top + height, self.left : self.left + width] = self.inside
        return whole


def components(where: npt.NDArray[np.bool_], min_area: int = 0) -> Iterator[Component]:
    """The regions whose pixels touch at a side or a corner, by their first pixel, row after row. where: (H, W)."""
    count, numbers, stats, _ = cv2.connectedComponentsWithStats(where.astype(np.uint8), connectivity=8)
    regions = []
    for number in range(1, count):
        left, top, width, height, area = stats[number].tolist()
        if area >= min_area:
            inside = numbers[top : top + height, left : left + width] == number
            regions.append(Component(top, left, area, inside))
    yield from sorted(regions, key=lambda region: (region.top, region.left + int(region.inside[0].argmax())))
