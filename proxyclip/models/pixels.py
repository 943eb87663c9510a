"""Pixels on a device, as the networks take them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def pixels_on(device: torch.device, image: np.ndarray) -> Tensor:
    """Bring an image (h, w, 3) uint8 to a device: (3, h, w) uint8."""
    writable = np.require(image, requirements=("C", "W"))  # torch refuses flipped and read-only views
    pixels = torch.from_numpy(writable)
    if device.type == "cuda":
        pixels = pixels.pin_memory()  # without it, the copy waits until the GPU is idle
    return pixels.to(device, non_blocking=True).permute(2, 0, 1)


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Subtract the mean colour of pixels (B, 3, H, W) in [0, 1], and divide by its standard deviation."""
    means, deviations = (colour_on(pixels.device, tuple(values)).view(1, 3, 1, 1) for values in (mean, std))
    return (pixels - means) / deviations


@lru_cache
def colour_on(device: torch.device, values: tuple[float, ...]) -> Tensor:
    """A colour (3,) float32 on a device. It is kept there, since every copy to a GPU waits until the GPU is idle."""
    return torch.tensor(values, device=device)
