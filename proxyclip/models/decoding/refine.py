"""PAMR: pixel-adaptive mask refinement (Araslanov and Roth, 2005.08104, sec. 4), on logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pamr_affinity(image: Tensor, dilations: Sequence[int]) -> Tensor:
    """The weight of each neighbour of every pixel, 8 neighbours per dilation.

    image: (3, H, W), normalised. Returns (8 * len(dilations), H, W): the softmax, over a pixel's neighbours, of the
    channels' mean of -|difference| / (0.1 * standard deviation). The standard deviation is per channel, over the pixel
    and its neighbours.
    """
    neighbours = torch.stack(list(_neighbours(image, dilations)))  # (8 * dilations, 3, H, W)
    centres = image.expand(len(dilations), *image.shape)
    deviation = torch.cat([neighbours, centres]).std(dim=0)  # (3, H, W)
    distance = (neighbours - image).abs_().div_(1e-8 + 0.1 * deviation)
    return (-distance.mean(dim=1)).softmax(dim=0)


def pamr(logits: Tensor, affinity: Tensor, dilations: Sequence[int], steps: int) -> Tensor:
    """Replace every pixel by the weighted mean of its neighbours, `steps` times, each map by itself.

    logits: (Q, H, W). affinity: from `pamr_affinity` with the same dilations. Returns (Q, H, W).
    """
    for _ in range(steps):
        refined = torch.zeros_like(logits)
        for weight, neighbour in zip(affinity, _neighbours(logits, dilations), strict=True):
            refined.addcmul_(neighbour, weight)
        logits = refined
    return logits


def _neighbours(maps: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """The 8 neighbours of every pixel at each dilation: views of (C, H, W), with the border repeated outwards."""
    height, width = maps.shape[-2:]
    for dilation in dilations:
        padded = F.pad(maps[None], (dilation,) * 4, mode="replicate")[0]
        for row in (0, 1, 2):
            for column in (0, 1, 2):
                if (row, column) != (1, 1):
                    top, left = row * dilation, column * dilation
                    yield padded[:, top : top + height, left : left + width]
