"""Any other vision transformer of timm as a proxy: its feature map, at the size rule of its family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.naflexvit import NaFlexVit
from torch import Tensor, nn

from proxyclip.models.networks.proxy import IMAGENET_MEAN, IMAGENET_STD, TimmProxy, is_plain_vit

# A coarser map than this blurs a window of 336 pixels to a few patches.
MAX_STRIDE = 16


class FeatureMapProxy(nn.Module):
    """Patch features of a timm vision transformer whose tokens form a grid, through its `forward_intermediates`.

    The map is the model's last one, after its final norm, without class, distillation and register tokens. Of
    hierarchical transformers (Hiera of SAM 2, Swin) it is the last one of stride 16 or less, as it leaves its stage:
    the finest at which most of the blocks, and SAM 2's global attention, lie. timm's SAM gives its neck.

    A model built for any size (`dynamic_img_size=True`, NaFlex) sees a window as it is, or resized to the nearest
    multiples of its patch (the larger of two) where it is none: windows come in multiples of 56 pixels, not of 16. Any
    other sees every window resized to its own square. Both bilinearly without antialias; the grid covers the window.
    side_px: a square that replaces either rule. mean, std: RGB in [0, 1]; the model's own by default.

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
        if misfit := _misfit(model):
            raise ValueError(
                f"The proxy is a {type(model).__name__}, which {misfit}; wanted a timm vision transformer whose tokens "
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

    @property
    def patch_px(self) -> int | None:
        """Side of a cell of the grid, or None where every window is resized to one size."""
        return self.stride if self.side_hw is None else None

    def set_trunk_dtype(self, dtype: torch.dtype) -> None:
        """Run the network in `dtype`; its features are returned in float32."""
        self.model.to(dtype)

    def forward(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """pixels: (B, 3, H, W) float32, normalised. Returns features (B, N, C) float32 and the grid (h, w)."""
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
                f"{type(self.model).__name__} gives features {tuple(features.shape)} for a window of {size[0]} x "
                f"{size[1]}; wanted a patch grid {grid_hw}."
            )
        tokens = features.flatten(2).transpose(1, 2)  # (B, N, C)
        if self.is_last and isinstance(getattr(self.model, "norm", None), nn.Identity):
            tokens = self.model.fc_norm(tokens)  # timm keeps the final norm there where the tokens are averaged
        return tokens.float(), grid_hw


def as_proxy(model: nn.Module) -> TimmProxy | FeatureMapProxy:
    """The proxy that fits a timm model; ValueError says why none does."""
    return TimmProxy(model) if is_plain_vit(model) else FeatureMapProxy(model)


def _misfit(model: Any) -> str | None:
    """Why a model cannot be a proxy, to follow its name."""
    if not any("attn" in name or "Attention" in type(part).__name__ for name, part in model.named_modules()):
        return "has no attention"
    if not any("embed" in name for name, _ in model.named_children()):
        return "has no patch embedding"
    if not hasattr(model, "forward_intermediates"):
        return "does not give out its features (forward_intermediates)"
    return None


def _own_size(model: Any) -> tuple[int, int] | None:
    """The only size that a model takes, or None if it takes any."""
    if isinstance(model, NaFlexVit) or getattr(model, "dynamic_img_size", False):
        return None
    embed = getattr(model, "patch_embed", None)
    size = getattr(embed, "img_size", None) or (getattr(model, "pretrained_cfg", None) or {}).get("input_size", ())[1:]
    if not size:
        raise ValueError(f"{type(model).__name__} names no input size; give FeatureMapProxy its side_px.")
    return int(size[0]), int(size[1])
