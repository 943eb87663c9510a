"""The base class of all proxies, and the plain vision transformers of ProxyCLIP: DINO, DINOv2, MAE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from proxyclip.models.networks.positions import GridCache, interpolate_positions
from proxyclip.recipes.architectures import scale_error
from proxyclip.recipes.proxies import PositionRule

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Proxy(nn.Module):
    """A network whose patch features give the attention weights. A new kind of proxy is a subclass.

    mean, std: of the pixels that it takes, RGB in [0, 1]. patch_px: side of a patch; None if the network resizes every
    window to one square, so that smaller windows cost no less.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch_px: int | None

    def set_trunk_dtype(self, dtype: torch.dtype) -> None:
        """Run the network in `dtype`; its features are float32 all the same."""
        raise NotImplementedError

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """pixels: (B, 3, H, W) float32, normalised. Returns features (B, N, C) float32 and the grid (h, w)."""
        raise NotImplementedError


def check_scale(proxy: Proxy, scale: float) -> None:
    """ValueError if smaller windows (`ModelConfig.proxy_scale`) save nothing with this proxy."""
    if scale != 1 and proxy.patch_px is None:
        raise scale_error(scale)


def is_plain_vit(model: nn.Module) -> bool:
    """Whether a model fits `TimmProxy`."""
    return (
        isinstance(model, VisionTransformer)
        and model.pos_embed is not None
        and not hasattr(model, "dist_token")
        and isinstance(model.patch_embed, PatchEmbed)
    )


class TimmProxy(Proxy):
    """A timm `VisionTransformer`. Its features are the last tokens after the final norm, without prefix tokens.

    positions: "offset" for DINO and "size" for MAE, as in the paper's models; "antialias" for DINOv2 and as in timm.
    side_px: resize every window to this square first, bilinearly without antialiasing; None keeps its size.
    mean, std: RGB in [0, 1]; by default the model's own, else ImageNet's.
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
                f"The proxy is a {type(model).__name__}, which TimmProxy does not support; use a timm "
                "VisionTransformer with absolute position embeddings (DINO, DeiT, supervised ViTs), without a "
                "distillation token or convolutional stem."
            )
        network: Any = model.eval().requires_grad_(False)
        self.model = network
        self.rule: PositionRule = positions
        self.side_px = side_px
        self._positions = GridCache()
        pretrained = getattr(model, "pretrained_cfg", None) or {}
        self.mean = tuple(pretrained.get("mean", IMAGENET_MEAN) if mean is None else mean)
        self.std = tuple(pretrained.get("std", IMAGENET_STD) if std is None else std)
        self.patch_px = int(network.patch_embed.proj.stride[0]) if side_px is None else None

    def set_trunk_dtype(self, dtype: torch.dtype) -> None:
        """As `Proxy.set_trunk_dtype`."""
        self.model.to(dtype)

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """As `Proxy.forward`."""
        model = self.model
        if self.side_px is not None:
            pixels = F.interpolate(pixels, size=(self.side_px, self.side_px), mode="bilinear", align_corners=False)
        patches = model.patch_embed.proj(pixels.to(model.pos_embed.dtype))  # (B, C, h, w)
        grid_hw = (patches.shape[2], patches.shape[3])
        tokens = model.patch_embed.norm(patches.flatten(2).transpose(1, 2))  # (B, N, C)
        prefix, positions = self.position_embedding(grid_hw)
        tokens = torch.cat([prefix.expand(tokens.shape[0], -1, -1), tokens + positions], dim=1)
        tokens = model.norm(model.blocks(model.norm_pre(tokens)))
        return tokens[:, model.num_prefix_tokens :].float(), grid_hw

    def position_embedding(self, grid_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Prefix tokens (1, P, C) with their positions added, and patch positions (1, N, C)."""
        model = self.model
        parts = [part for part in (model.cls_token, model.reg_token) if part is not None]
        prefix = torch.cat(parts, dim=1) if parts else model.pos_embed[:, :0]
        stored = model.pos_embed
        if not model.no_embed_class:
            prefix, stored = prefix + stored[:, : prefix.shape[1]], stored[:, prefix.shape[1] :]
        native_hw = model.patch_embed.grid_size

        def resized() -> Tensor:
            return interpolate_positions(stored[0], native_hw, grid_hw, self.rule)[None].to(stored.dtype)

        return prefix, self._positions.get(model.pos_embed, grid_hw, resized)
