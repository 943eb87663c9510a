"""One training sample, cut and coloured by chance: the same for the same seed, epoch and image."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from proxyclip.training.samples import Sample
from proxyclip.training.student.settings import TrainSettings

Batch = tuple[Tensor, Tensor, Tensor]


def augmented(sample: Sample, settings: TrainSettings, ignore: int, rng: np.random.Generator) -> Batch:
    """uint8 image (3, S, S), int64 mask (S, S), float32 confidence (S, S); S is `size`. Padding is ignored."""
    image = sample["image"].as_subclass(Tensor).float()[None]
    mask = sample["mask"].as_subclass(Tensor)[None, None].float()
    confidence = sample["confidence"].as_subclass(Tensor)[None, None]
    low, high = np.log(settings.min_scale), np.log(settings.max_scale)
    scale = float(np.exp(rng.uniform(low, high))) * settings.size / min(image.shape[2:])
    hw = [max(round(side * scale), 1) for side in image.shape[2:]]
    image = F.interpolate(image, size=hw, mode="bilinear", align_corners=False, antialias=True)
    mask, confidence = (F.interpolate(each, size=hw, mode="nearest-exact") for each in (mask, confidence))
    size = settings.size
    top, left = (int(rng.integers(max(side - size, 0) + 1)) for side in hw)
    image, mask, confidence = (each[..., top : top + size, left : left + size] for each in (image, mask, confidence))
    missing = (0, size - image.shape[3], 0, size - image.shape[2])
    image, mask, confidence = (
        F.pad(each, missing, value=value) for each, value in ((image, 124.0), (mask, float(ignore)), (confidence, 0.0))
    )
    if settings.flip and rng.random() < 0.5:
        image, mask, confidence = (each.flip(3) for each in (image, mask, confidence))
    return coloured(image[0], settings.colour, rng), mask[0, 0].long(), confidence[0, 0]


def coloured(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """float (3, H, W), 0 to 255, with another brightness, contrast and saturation, as uint8."""
    if strength:
        brightness, contrast, saturation = (float(np.exp(rng.uniform(-strength, strength))) for _ in range(3))
        image = image * brightness
        image = (image - image.mean()) * contrast + image.mean()
        gray = image.mean(0, keepdim=True)
        image = (image - gray) * saturation + gray
    return image.round().clamp(0, 255).to(torch.uint8)
