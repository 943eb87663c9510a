"""SAM as a proxy: the image encoder of segment-anything (2304.02643), an optional dependency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from proxyclip.models.networks.proxy import IMAGENET_MEAN, IMAGENET_STD


class SamProxy(nn.Module):
    """The output of SAM's neck. Every window is resized to the encoder's square input, 1024 x 1024.

    ProxyCLIP normalises with ImageNet's mean and std, not with SAM's.
    """

    def __init__(
        self, encoder: nn.Module, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        super().__init__()
        if not hasattr(encoder, "neck") or not hasattr(encoder, "img_size"):
            raise ValueError(f"The proxy is a {type(encoder).__name__}; wanted segment-anything's ImageEncoderViT.")
        self.encoder: Any = encoder.eval().requires_grad_(False)
        self.mean, self.std = tuple(mean), tuple(std)
        self.patch_px = None

    def set_trunk_dtype(self, dtype: torch.dtype) -> None:
        """Run the network in `dtype`; its features are returned in float32."""
        self.encoder.to(dtype)

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """pixels: (B, 3, H, W) float32, normalised. Returns features (B, N, C) float32 and the grid (h, w)."""
        side = self.encoder.img_size
        resized = F.interpolate(pixels, size=(side, side), mode="bilinear", align_corners=False)
        features = self.encoder(resized.to(self.encoder.pos_embed.dtype))  # (B, C, h, w)
        return features.flatten(2).transpose(1, 2).float(), (features.shape[2], features.shape[3])


def build_sam_encoder(name: str) -> nn.Module:
    """The image encoder of a model of segment-anything ("vit_b"), with random weights."""
    try:
        from segment_anything import sam_model_registry
    except ImportError as error:
        raise ImportError('SAM needs segment-anything: pip install "proxyclip[sam]".') from error
    encoder: nn.Module = sam_model_registry[name]().image_encoder
    return encoder
