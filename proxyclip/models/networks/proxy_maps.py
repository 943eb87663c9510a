"""Any other timm vision transformer as a proxy, through its feature map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.naflexvit import NaFlexVit
from torch import Tensor, nn

from proxyclip.models.networks.proxy import IMAGENET_MEAN, IMAGENET_STD, Proxy, TimmProxy, is_plain_vit

# On a coarser map, a window of 336 pixels would have only a few patches.
MAX_STRIDE = 16


class FeatureMapProxy(Proxy):
    """A timm vision transformer whose tokens form a grid, through its `forward_intermediates`.

    Its features are the model's last map after the final norm, without class, distillation and register tokens.
    Hierarchical transformers (Hiera of SAM 2, Swin) give the last map of stride 16 or less, before any norm: most
    blocks, and SAM 2's global attention, come before it. timm's SAM gives the output of its neck.

    Models that take any size (`dynamic_img_size=True`, NaFlex) see a window as it is. If the patch does not divide a
    side, the window is resized to the nearest multiple (of two equally near, the larger): windows have sides that are
    multiples of 56 pixels, but not of 16. Other models see every window resized to their own square. Both resizes are
    bilinear without antialiasing, and the grid covers the whole window.
    side_px: a square to use instead of either rule. mean, std: RGB in [0, 1]; by default the model's own.

    Raises ValueError for a model that is no vision transformer or has no grid.
    """

    def __init__(
        self,
        model: nn.Module,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        side_px: int | None = None,
    ) -> None:
        super().__init__()
        if problem := _problem(model):
            raise ValueError(
                f"The proxy is a {type(model).__name__}, which {problem}; use a timm vision transformer whose tokens "
                "form a patch grid (ViT, DINOv3, EVA, BEiT, Hiera, Swin, ...)."
            )
        network: Any = model.eval().requires_grad_(False)
        self.model = network
        strides = [int(info["reduction"]) for info in network.feature_info]
        self.index = max((i for i, stride in enumerate(strides) if stride <= MAX_STRIDE), default=len(strides) - 1)
        self.stride = strides[self.index]
        self.is_last = self.index == len(strides) - 1
        pretrained = getattr(model, "pretrained_cfg", None) or {}
        self.mean = tuple(pretrained.get("mean", IMAGENET_MEAN) if mean is None else mean)
        self.std = tuple(pretrained.get("std", IMAGENET_STD) if std is None else std)
        self.side_hw = (side_px, side_px) if side_px else _own_size(self.model)
        self.patch_px = self.stride if self.side_hw is None else None

    def set_trunk_dtype(self, dtype: torch.dtype) -> None:
        """As `Proxy.set_trunk_dtype`."""
        self.model.to(dtype)

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """As `Proxy.forward`."""
        size = self.side_hw or tuple(max(int(side / self.stride + 0.5), 1) * self.stride for side in pixels.shape[2:])
        if size != pixels.shape[2:]:
            pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
        (features,) = self.model.forward_intermediates(
            pixels.to(next(self.model.parameters()).dtype),
            indices=[self.index],
            norm=self.is_last,
            stop_early=True,
            output_fmt="NCHW",
            intermediates_only=True,
        )  # (B, C, h, w)
        grid_hw = (size[0] // self.stride, size[1] // self.stride)
        if features.ndim != 4 or features.shape[2:] != grid_hw:
            raise ValueError(
                f"{type(self.model).__name__} gives features of shape {tuple(features.shape)} for a window of "
                f"{size[0]} x {size[1]} pixels, not a patch grid of {grid_hw}; use another proxy."
            )
        tokens = features.flatten(2).transpose(1, 2)  # (B, N, C)
        if self.is_last and isinstance(getattr(self.model, "norm", None), nn.Identity):
            tokens = self.model.fc_norm(tokens)  # timm's place for the final norm of models that average their tokens
        return tokens.float(), grid_hw


def as_proxy(model: nn.Module) -> TimmProxy | FeatureMapProxy:
    """The proxy for a timm model. Raises ValueError with the reason if there is none."""
    return TimmProxy(model) if is_plain_vit(model) else FeatureMapProxy(model)


def _problem(model: Any) -> str | None:
    """Why a model cannot be a proxy ("has no attention"), or None if it can."""
    if not any("attn" in name or "Attention" in type(part).__name__ for name, part in model.named_modules()):
        return "has no attention"
    if not any("embed" in name for name, _ in model.named_children()):
        return "has no patch embedding"
    if not hasattr(model, "forward_intermediates"):
        return "cannot return its features (it has no forward_intermediates)"
    return None


def _own_size(model: Any) -> tuple[int, int] | None:
    """The only size that a model takes, or None if it takes any."""
    if isinstance(model, NaFlexVit) or getattr(model, "dynamic_img_size", False):
        return None
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "img_size", None) or (getattr(model, "pretrained_cfg", None) or {}).get("input_size", ())[1:]
    if not size:
        raise ValueError(f"{type(model).__name__} does not say its input size; pass side_px to FeatureMapProxy.")
    return int(size[0]), int(size[1])
