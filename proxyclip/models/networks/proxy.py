"""What a proxy is, and the plain vision transformers of ProxyCLIP: DINO, DINOv2, MAE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from proxyclip.models.networks.positions import interpolate_positions
from proxyclip.recipes.proxies import PositionRule

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Proxy(Protocol):
    """What the segmenter asks of a proxy.

    mean, std: RGB in [0, 1], of the pixels it takes. patch_px: side of a patch; None where every window is resized to
    one square, so that its size costs nothing.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def patch_px(self) -> int | None: ...

    def set_trunk_dtype(self, dtype: torch.dtype) -> None:
        """Run the network in `dtype`."""

    def __call__(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """pixels: (B, 3, H, W) float32, normalised. Returns features (B, N, C) float32 and the grid (h, w)."""


def check_scale(proxy: Proxy, scale: float) -> None:
    """ValueError where a proxy cannot see windows at a share of their size (`ModelConfig.proxy_scale`)."""
    if scale != 1 and proxy.patch_px is None:
        raise ValueError(
            f"The proxy sees windows at {scale:g} of their size (--quality, model.proxy_scale), but this one resizes "
            "every window to a square of its own, so that nothing is gained; stay with exact (1), or take another "
            "proxy, such as dino-b8."
        )


def is_plain_vit(model: nn.Module) -> bool:
    """Whether `TimmProxy` takes a model."""
    return (
        isinstance(model, VisionTransformer)
        and model.pos_embed is not None
        and not hasattr(model, "dist_token")
        and isinstance(model.patch_embed, PatchEmbed)
    )


class TimmProxy(nn.Module):
    """Patch features of a timm `VisionTransformer`: its last normalised tokens, without prefix tokens.

    positions: "offset" for DINO and "size" for MAE, as the paper's models do it; "antialias" for DINOv2 and timm's
    own way. side_px: every window is resized to this square first, bilinearly without antialias; None: as it is.
    mean, std: RGB in [0, 1]; the model's own where it names them, else ImageNet's.
    """

    def __init__(
        self,
        model: nn.Module,
        positions: PositionRule = "antialias",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        side_px: int | None = None,
    ) -> None:
        super().__init__()
        if not is_plain_vit(model):
            raise ValueError(
                f"The proxy is a {type(model).__name__}; wanted a timm VisionTransformer with absolute "
                "position embeddings (DINO, DeiT, supervised ViTs), without a distillation token or convolutional stem."
            )
        self.model: Any = model.eval().requires_grad_(False)
        self.rule: PositionRule = positions
        self.side_px = side_px
        pretrained = getattr(model, "pretrained_cfg", None) or {}
        self.mean = tuple(pretrained.get("mean", IMAGENET_MEAN) if mean is None else mean)
        self.std = tuple(pretrained.get("std", IMAGENET_STD) if std is None else std)

    @property
    def patch_px(self) -> int | None:
        """Side of a patch, or None with `side_px`."""
        return self.model.patch_embed.proj.stride[0] if self.side_px is None else None

    def set_trunk_dtype(self, dtype: torch.dtype) -> None:
        """Run the network in `dtype`; its features are returned in float32."""
        self.model.to(dtype)

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """pixels: (B, 3, H, W) float32, normalised. Returns features (B, N, C) float32 and the grid (h, w)."""
        model = self.model
        if self.side_px is not None:
            pixels = F.interpolate(pixels, size=(self.side_px, self.side_px), mode="bilinear", align_corners=False)
        patches = model.patch_embed.proj(pixels.to(model.pos_embed.dtype))  # (B, C, h, w)
        grid_hw = (patches.shape[2], patches.shape[3])
        tokens = model.patch_embed.norm(patches.flatten(2).transpose(1, 2))  # (B, N, C)
        prefix, positions = self._position_embedding(grid_hw)
        tokens = torch.cat([prefix.expand(tokens.shape[0], -1, -1), tokens + positions], dim=1)
        tokens = model.norm(model.blocks(model.norm_pre(tokens)))
        return tokens[:, model.num_prefix_tokens :].float(), grid_hw

    def _position_embedding(self, grid_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Prefix tokens (1, P, C) with their positions, and patch positions (1, N, C)."""
        model = self.model
        parts = [part for part in (model.cls_token, model.reg_token) if part is not None]
        prefix = torch.cat(parts, dim=1) if parts else model.pos_embed[:, :0]
        stored = model.pos_embed
        if not model.no_embed_class:
            prefix, stored = prefix + stored[:, : prefix.shape[1]], stored[:, prefix.shape[1] :]
        patches = interpolate_positions(stored[0], model.patch_embed.grid_size, grid_hw, self.rule)
        return prefix, patches[None].to(stored.dtype)
