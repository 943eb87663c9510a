"""All that decides the weights of a student, besides the masks. Without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TrainSettings:
    """What a student is and how it learns."""

    architecture: Literal["light", "unet", "fpn", "upernet", "segformer", "deeplabv3plus", "dpt"] = "segformer"
    """light is a small convolutional head on a vision transformer; the others are segmentation-models-pytorch's."""
    encoder: str = "resnet18"
    """Name of a network of timm."""
    size: int = 256
    """Side of the training crops, and short side of the images that the student labels, in pixels."""
    steps: int = 2000
    """Optimizer steps."""
    batch_size: int = 8
    """Images of a worker at once."""
    accumulate: int = 1
    """Batches of a step."""
    lr: float = 6e-4
    """Learning rate of the decoder."""
    encoder_lr: float = 0.1
    """Learning rate of the encoder, as a share of --lr. 0 freezes it."""
    weight_decay: float = 0.01
    """Of AdamW."""
    schedule: Literal["poly", "cosine"] = "poly"
    """How the learning rate falls to 0 (poly: power 0.9)."""
    warmup: int = 50
    """Steps in which the learning rate rises."""
    confidence: float = 1.0
    """A pixel weighs its confidence to this power. 0: all pixels weigh the same."""
    balance: float = 0.0
    """A class weighs its share of the pixels to minus this power. 0.5 is usual for rare classes."""
    label_smoothing: float = 0.0
    """Share of the target that goes to all classes."""
    ema: float = 0.99
    """Decay of the average of weights that is validated and saved. 0: the last weights."""
    bf16: bool = False
    """Compute in bfloat16."""
    min_scale: float = 0.75
    """Smallest random scale of an image."""
    max_scale: float = 1.5
    """Largest random scale of an image."""
    flip: bool = True
    """Mirror half of the images."""
    colour: float = 0.3
    """Strength of random brightness, contrast and saturation. 0: none."""
    held_out: float = 0.1
    """Share of the labelled images that are kept for validation if there are no --val-labels."""
    seed: int = 0
    """Of weights, order and augmentations."""

    def __post_init__(self) -> None:
        for name in ("size", "steps", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{_flag(name)} is {getattr(self, name)}; it must be at least 1.")
        if self.size % 32:
            raise ValueError(f"--size is {self.size}; it must be a multiple of 32 pixels.")
        if not self.lr > 0:
            raise ValueError(f"--lr is {self.lr}; it must be above 0.")
        for name in ("weight_decay", "confidence", "balance", "colour", "encoder_lr", "warmup"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"--{_flag(name)} is {getattr(self, name)}; it must be 0 or more.")
        for name in ("label_smoothing", "ema", "held_out"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"--{_flag(name)} is {getattr(self, name)}; it must be from 0 to below 1.")
        if not 0 < self.min_scale <= self.max_scale:
            raise ValueError(f"--min-scale is {self.min_scale} and --max-scale {self.max_scale}; give 0 < min <= max.")


def _flag(name: str) -> str:
    return name.replace("_", "-")
