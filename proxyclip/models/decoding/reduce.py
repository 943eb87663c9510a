"""Summaries of an image's labels, computed on the device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Confidences are rounded to multiples of this: then their sum is exact, and the same in any order.
_UNIT = 2.0**-24

# Pixels counted at once; this bounds the memory.
PIXELS_AT_ONCE = 2**22

# Counters of each label on a GPU, where additions to one address wait for each other.
_COUNTERS = 64


def reduce_confidence(confidence: Tensor, stride: int) -> Tensor:
    """Means of blocks of stride x stride pixels: (H, W) from 0 to 1, to (ceil(H / stride), ceil(W / stride)) uint8.

    Blocks at the right and bottom edge are means of the pixels that they have.
    """
    means = F.avg_pool2d(confidence[None], stride, ceil_mode=True, count_include_pad=False)[0]
    return (255 * means).round().clamp(0, 255).to(torch.uint8)


def class_sums(labels: Tensor, confidence: Tensor, num_labels: int) -> tuple[Tensor, Tensor]:
    """The number of pixels of each label, and the sum of their confidences.

    labels: (H, W) integers below `num_labels`. confidence: (H, W) float32, 0 to 1. Returns (num_labels,) int64 and
    float64. Up to 2^29 pixels, the sums do not depend on the order in which a device adds.
    """
    pixels = torch.zeros(num_labels, dtype=torch.int64, device=labels.device)
    units = torch.zeros(num_labels, dtype=torch.float64, device=labels.device)
    parts = (values.flatten().split(PIXELS_AT_ONCE) for values in (labels, confidence))
    for some, probabilities in zip(*parts, strict=True):
        count = _counted if labels.is_cuda else torch.bincount
        pixels += count(some, minlength=num_labels)
        units += count(some, (probabilities / _UNIT).round().double(), minlength=num_labels)
    return pixels, units * _UNIT


def _counted(labels: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """`torch.bincount`, which waits for the GPU to learn the largest label; here it must be below `minlength`."""
    number = torch.arange(len(labels), device=labels.device) % _COUNTERS
    values = torch.ones_like(number) if weights is None else weights
    counters = torch.zeros(_COUNTERS * minlength, dtype=values.dtype, device=labels.device)
    return counters.index_add_(0, number * minlength + labels, values).view(_COUNTERS, minlength).sum(dim=0)
