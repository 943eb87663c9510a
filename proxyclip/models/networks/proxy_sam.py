"""SAM as a proxy, through the optional package segment-anything (2304.02643)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from proxyclip.models.networks.proxy import IMAGENET_MEAN, IMAGENET_STD, Proxy


class SamProxy(Proxy):
    """SAM's image encoder. Its features are the output of the neck.

    Every window is resized to the encoder's square, 1024 x 1024 pixels. Pixels are normalised with ImageNet's mean and
    std, as in ProxyCLIP, not with SAM's.
    """

    def __init__(
        self, encoder: nn.Module, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        super().__init__()
        if not hasattr(encoder, "neck") or not hasattr(encoder, "img_size"):
            raise ValueError(f"SamProxy needs segment-anything's ImageEncoderViT, but got a {type(encoder).__name__}.")
        self.encoder: Any = encoder.eval().requires_grad_(False)
        self.mean, self.std = tuple(mean), tuple(std)
        self.patch_px = None

    def set_trunk_dtype(self, dtype: torch.dtype) -> None:
        """As `Proxy.set_trunk_dtype`."""
        self.encoder.to(dtype)

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """As `Proxy.forward`."""
        side = self.encoder.img_size
        resized = F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)
        features = self.encoder(resized.to(self.encoder.pos_embed.dtype))  # (B, C, h, w)
        return features.flatten(2).transpose(1, 2).float(), (features.shape[2], features.shape[3])


def build_sam_encoder(name: str) -> nn.Module:
    """The image encoder of a segment-anything model ("vit_b"), with random weights."""
    try:
        from segment_anything import sam_model_registry
    except ImportError as error:
        raise ImportError('SAM needs the package segment-anything; pip install "proxyclip[sam]".') from error
    encoder: nn.Module = sam_model_registry[name]().image_encoder
    return encoder
