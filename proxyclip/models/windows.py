"""The windows of an image: where they lie, how they are cut and batched, and the matrix that stitches their grids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from proxyclip.config import WindowConfig
from proxyclip.images.sizes import resized_hw


@dataclass(frozen=True)
class AxisPlan:
    """Windows along one axis, in pixels.

    original, resized: lengths of the axis. starts: of the windows in the resized image, each `length` long.
    pad_before, pad_after: padding added to every window.
    """

    original: int
    resized: int
    starts: tuple[int, ...]
    length: int
    pad_before: int
    pad_after: int

    @property
    def padded(self) -> int:
        """Length of a window with its padding, as the networks see it."""
        return self.pad_before + self.length + self.pad_after


@dataclass(frozen=True)
class WindowPlan:
    """Windows of one image: the product of two axis plans, row-major. All have the same padded size.

    whole: there is one window, and its grid is resized to the original image in one step.
    """

    y: AxisPlan
    x: AxisPlan
    whole: bool

    @property
    def image_hw(self) -> tuple[int, int]:
        """Size of the original image in pixels."""
        return self.y.original, self.x.original

    @property
    def padded_hw(self) -> tuple[int, int]:
        """Size of every window as the networks see it."""
        return self.y.padded, self.x.padded

    @property
    def num_windows(self) -> int:
        """Number of windows."""
        return len(self.y.starts) * len(self.x.starts)


def plan_windows(original_hw: tuple[int, int], config: WindowConfig) -> WindowPlan:
    """Plan the sliding pass over an image of `original_hw` pixels.

    The last window of an axis is moved back to end at the border. An axis shorter than the crop has one window of its
    own length. Windows are padded to a multiple of `pad_multiple`; an odd pixel goes to the right or bottom. With
    `crop=0` the whole image is one window without padding.
    """
    resized = resized_hw(original_hw, config)
    y, x = (_plan_axis(original, side, config) for original, side in zip(original_hw, resized, strict=True))
    return WindowPlan(y, x, whole=config.crop == 0 and not config.upsample_twice)


def _plan_axis(original: int, side: int, config: WindowConfig) -> AxisPlan:
    if config.crop == 0:
        return AxisPlan(original, side, (0,), side, 0, 0)
    length = min(config.crop, side)
    steps = -(-(side - length) // config.stride) + 1
    starts = tuple(min(step * config.stride, side - length) for step in range(steps))
    padding = -length % config.pad_multiple
    return AxisPlan(original, side, starts, length, padding // 2, padding - padding // 2)


def cut_windows(image: Tensor, plan: WindowPlan, fill: Tensor) -> Tensor:
    """Cut the windows of a resized image and pad them with a colour.

    image: (3, H, W). fill: (3,) colour of the padding; CLIP's mean becomes zero when CLIP's pixels are normalised.
    Returns (num_windows, 3, *padded_hw).
    """
    height, width = plan.padded_hw
    windows = fill.view(1, 3, 1, 1).repeat(plan.num_windows, 1, height, width)
    index = 0
    for top in plan.y.starts:
        for left in plan.x.starts:
            crop = image[:, top : top + plan.y.length, left : left + plan.x.length]
            inside = windows[index, :, plan.y.pad_before : plan.y.pad_before + plan.y.length]
            inside[:, :, plan.x.pad_before : plan.x.pad_before + plan.x.length] = crop
            index += 1
    return windows


def batch_windows(images: Iterable[Tensor], size: int) -> Iterator[tuple[list[int], Tensor]]:
    """Batch the windows of several images, windows of equal size together.

    images: per image its windows (num_windows, 3, h, w); the next is asked for when a batch is not full yet. Yields the
    image index of every window, and the windows (size, 3, h, w). Copies fill up the last batches, so that all batches
    of a size have one shape: the shape decides how products round, so a result does not depend on how many images are
    encoded together.
    """
    by_size: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
    for index, windows in enumerate(images):
        waiting = by_size.setdefault(windows.shape[2:], [])
        waiting.extend((index, window) for window in windows)
        while len(waiting) >= size:
            yield _batch(waiting[:size], size)
            del waiting[:size]
    for waiting in by_size.values():
        if waiting:
            yield _batch(waiting, size)


def _batch(windows: list[tuple[int, Tensor]], size: int) -> tuple[list[int], Tensor]:
    filled = windows + windows[-1:] * (size - len(windows))
    return [index for index, _ in windows], torch.stack([window for _, window in filled])


def shrink_windows(windows: Tensor, scale: float, patch_px: int) -> Tensor:
    """Resize windows (B, 3, H, W) by `scale`, rounded to whole patches; bilinear, with antialiasing."""
    height, width = (max(round(side * scale / patch_px), 1) * patch_px for side in windows.shape[2:])
    return F.interpolate(windows, size=(height, width), mode="bilinear", align_corners=False, antialias=True)


def stitch_matrix(axis: AxisPlan, grid: int, whole: bool) -> Tensor:
    """The matrix from the window grids of one axis to the original image's pixels.

    It does five steps at once: resize each window's grid to its padded pixels, crop the padding, add the windows into
    the resized image, divide by the number of windows over each pixel, resize to the original. All are linear and
    separable, so their product is one matrix per axis. With `whole`, the grid is resized to the original directly.

    grid: patches per window along this axis. Returns (original, windows * grid) float32; rows sum to 1.
    """
    if whole:
        return _bilinear_matrix(grid, axis.original).float()
    upsample = _bilinear_matrix(grid, axis.padded)[axis.pad_before : axis.pad_before + axis.length]
    canvas = torch.zeros(axis.resized, len(axis.starts), grid, dtype=torch.float64)
    count = torch.zeros(axis.resized, 1, dtype=torch.float64)
    for index, start in enumerate(axis.starts):
        canvas[start : start + axis.length, index] = upsample
        count[start : start + axis.length] += 1
    return resize_rows(canvas.flatten(1) / count, axis.original).float()


@lru_cache(maxsize=64)  # the images of a corpus have few different sizes
def merged_cells(axis: AxisPlan, grid: int, whole: bool) -> tuple[int, ...]:
    """Which cells of the window grids of one axis count alike for every pixel, so that their mean can replace them.

    They do where the patches of overlapping windows coincide, but for the cells at a window's border. Returns for each
    of the windows * grid cells the number of its merged cell, numbered in order of their first cells.
    """
    numbers: dict[bytes, int] = {}
    columns = stitch_matrix(axis, grid, whole).T.contiguous().numpy()
    return tuple(numbers.setdefault(column.tobytes(), len(numbers)) for column in columns)


def _bilinear_matrix(from_length: int, to_length: int) -> Tensor:
    """The bilinear resize of an axis as a matrix: (to_length, from_length) float64."""
    return resize_rows(torch.eye(from_length, dtype=torch.float64), to_length)


def resize_rows(rows: Tensor, length: int) -> Tensor:
    """Resize the first axis bilinearly, without antialiasing: (from, N) to (length, N)."""
    return F.interpolate(rows.T[None], size=length, mode="linear", align_corners=False)[0].T.contiguous()
