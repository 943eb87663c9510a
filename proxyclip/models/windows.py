"""Window plan of the sliding pass, and the stitch that takes window grids to the pixels of the original image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from proxyclip.config import WindowConfig
from proxyclip.images.reading import resized_hw


@dataclass(frozen=True)
class AxisPlan:
    """Windows along one axis, in pixels: `starts` in the resized image, each `length` long, padded at both ends."""

    original: int
    resized: int
    starts: tuple[int, ...]
    length: int
    pad_before: int
    pad_after: int

    @property
    def padded(self) -> int:
        """Length of a window with its padding: what the encoders see."""
        return self.pad_before + self.length + self.pad_after


@dataclass(frozen=True)
class WindowPlan:
    """Windows of one image: the product of two axis plans, row-major. All share one padded size.

    whole: the grid of the one window goes to the original image directly.
    """

    y: AxisPlan
    x: AxisPlan
    whole: bool

    @property
    def padded_hw(self) -> tuple[int, int]:
        """Size of every window as the encoders see it."""
        return self.y.padded, self.x.padded

    @property
    def num_windows(self) -> int:
        """Windows of the image."""
        return len(self.y.starts) * len(self.x.starts)


def plan_windows(original_hw: tuple[int, int], config: WindowConfig) -> WindowPlan:
    """Plan the sliding pass over an image of `original_hw` pixels.

    The last window of an axis is moved back to end at the border; an axis shorter than the crop has one
    window of its own length. Windows are padded to a multiple of `pad_multiple`, the odd pixel to the
    right and bottom. With `crop=0` the whole image is one window, without padding.
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

    image: (3, H, W). fill: (3,) colour of the padding; CLIP's mean is what zeros after normalisation are.
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


def shrink_windows(windows: Tensor, scale: float, patch_px: int) -> Tensor:
    """Windows (B, 3, H, W) at a share of their size, rounded to whole patches; bilinear, antialiased."""
    height, width = (max(round(side * scale / patch_px), 1) * patch_px for side in windows.shape[2:])
    return F.interpolate(windows, size=(height, width), mode="bilinear", align_corners=False, antialias=True)


def stitch_matrix(axis: AxisPlan, grid: int, whole: bool) -> Tensor:
    """The linear map from the window grids of one axis to the original image's pixels.

    Upsampling each window bilinearly to its padded pixels, cropping the padding, adding into the canvas,
    dividing by the number of windows over each pixel and resizing to the original are linear and
    separable, so their product is one matrix per axis. With `whole`, the grid goes directly to the original.

    grid: patches per window along this axis. Returns (original, windows * grid), float32; rows sum to 1.
    """
    if whole:
        return _bilinear_matrix(grid, axis.original).float()
    upsample = _bilinear_matrix(grid, axis.padded)[axis.pad_before : axis.pad_before + axis.length]
    canvas = torch.zeros(axis.resized, len(axis.starts), grid, dtype=torch.float64)
    count = torch.zeros(axis.resized, 1, dtype=torch.float64)
    for index, start in enumerate(axis.starts):
        canvas[start : start + axis.length, index] = upsample
        count[start : start + axis.length] += 1
    return _resize_rows(canvas.flatten(1) / count, axis.original).float()


def _bilinear_matrix(from_length: int, to_length: int) -> Tensor:
    """Bilinear resize of an axis as a matrix: (to_length, from_length) float64."""
    return _resize_rows(torch.eye(from_length, dtype=torch.float64), to_length)


def _resize_rows(rows: Tensor, length: int) -> Tensor:
    """Bilinear resize along the first axis, half-pixel centres, no antialias: (from, N) to (length, N)."""
    return F.interpolate(rows.T[None], size=length, mode="linear", align_corners=False)[0].T.contiguous()
