"""What a student is punished for, and how fast it learns."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from proxyclip.training.student.settings import TrainSettings


def weighted_cross_entropy(
    logits: Tensor, mask: Tensor, confidence: Tensor, *, ignore: int, settings: TrainSettings, classes: Tensor | None
) -> Tensor:
    """Mean cross-entropy of the pixels that have a class, weighted by confidence and by class.

    logits: (B, C, H, W). mask, confidence: (B, H, W). classes: weight of each class (C,), or None. 0 without pixels.
    """
    loss = F.cross_entropy(
        logits.float(), mask, ignore_index=ignore, reduction="none", label_smoothing=settings.label_smoothing
    )
    weight = (mask != ignore).float() * confidence.clamp(0, 1) ** settings.confidence
    if classes is not None:
        weight = weight * classes[mask.masked_fill(mask == ignore, 0)]
    return (loss * weight).sum() / weight.sum().clamp_min(1e-6)


def class_weights(pixels: list[int], power: float) -> Tensor | None:
    """The weight of each class by its number of pixels: share ** -power, at most 10, with mean 1 over the pixels."""
    if not power:
        return None
    counts = torch.tensor(pixels, dtype=torch.float64)
    share = counts / counts.sum()
    weight = (share.clamp_min(1e-9) * int((counts > 0).sum())) ** -power
    weight = weight.clamp(0.1, 10)
    return (weight / (weight * share).sum()).float()


def learning_rate(step: int, settings: TrainSettings) -> float:
    """The share of --lr in a step, which counts from 0."""
    left = 1 - step / settings.steps
    share = left**0.9 if settings.schedule == "poly" else (1 - math.cos(math.pi * left)) / 2
    return share * min(1.0, (step + 1) / max(settings.warmup, 1))
