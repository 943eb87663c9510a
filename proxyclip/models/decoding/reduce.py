"""What is kept of an image's labels, reduced on the device that made them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Confidences are added as whole multiples of this, which is exact and so the same in whatever order.
_UNIT = 2.0**-24

# Pixels counted at once: bounds the copies of them.
_AT_ONCE = 2**22


def reduce_confidence(confidence: Tensor, stride: int) -> Tensor:
    """Probabilities (H, W), 0 to 1, as means of blocks of stride x stride: uint8 (ceil(H / stride), ceil(W / stride)).

    Blocks at the right and lower edge are means of the pixels they have.
    """
    means = F.avg_pool2d(confidence[None], stride, ceil_mode=True, count_include_pad=False)[0]
    return (255 * means).round().clamp(0, 255).to(torch.uint8)


def class_sums(labels: Tensor, confidence: Tensor, num_labels: int) -> tuple[Tensor, Tensor]:
    """Pixels of each label, and the sum of their confidence.

    labels: (H, W) integers below `num_labels`. confidence: (H, W) float32, 0 to 1. Returns (num_labels,) int64 and
    float64. The sums are the same in whatever order a device adds, up to 2^29 pixels.
    """
    pixels = torch.zeros(num_labels, dtype=torch.int64, device=labels.device)
    units = torch.zeros(num_labels, dtype=torch.float64, device=labels.device)
    for some, probabilities in zip(labels.flatten().split(_AT_ONCE), confidence.flatten().split(_AT_ONCE), strict=True):
        pixels += torch.bincount(some, minlength=num_labels)
        units += torch.bincount(some, (probabilities / _UNIT).round().double(), minlength=num_labels)
    return pixels, units * _UNIT
