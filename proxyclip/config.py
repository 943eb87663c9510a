"""Every knob: frozen dataclasses, and the fingerprint of those that change a mask."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

# Raise when a change of the code changes masks made with an unchanged configuration.
RECIPE_VERSION = 1

Dtype = Literal["float32", "bfloat16", "float16"]


def _no_mask_change(default: Any) -> Any:
    """A field that leaves every mask as it is, and so stays out of the recipe."""
    return field(default=default, metadata={"changes_mask": False})


@dataclass(frozen=True)
class ModelConfig:
    """Which networks, and how the last block of CLIP mixes its values.

    clip: an open_clip architecture ("ViT-B-16-quickgelu") or "local-dir:FOLDER".
    clip_pretrained: tag of open_clip's weights; not used with local files.
    clip_weights, proxy_weights: local files that replace the download. Recipes know weights by their
    hash (`models.weights`), so paths do not count.
    proxy: a key of `models.vfm.VFMS`, the name of a timm vision transformer, or "local-dir:FOLDER".
    beta, gamma: shift and scale of the proxy attention (ProxyCLIP, sec. 3.2).
    """

    method: str = "proxyclip"
    clip: str = "ViT-B-16-quickgelu"
    clip_pretrained: str = "openai"
    clip_weights: str | None = _no_mask_change(None)
    proxy: str | None = "dino-b8"
    proxy_weights: str | None = _no_mask_change(None)
    beta: float = 1.2
    gamma: float = 3.0
    dtype: Dtype = "float32"


@dataclass(frozen=True)
class WindowConfig:
    """How an image is resized and cut. All in pixels; `crop=0` takes the whole image as one window."""

    short_side: int = 336
    long_side: int = 2048
    crop: int = 336
    stride: int = 112
    pad_multiple: int = 56

    def __post_init__(self) -> None:
        for name in ("short_side", "long_side", "stride", "pad_multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"windows.{name} must be at least 1 pixel, found {getattr(self, name)}.")
        if self.crop < 0:
            raise ValueError(f"windows.crop must be 0 (whole image) or more, found {self.crop}.")
        if 0 < self.crop < self.stride:
            raise ValueError(
                f"windows.stride {self.stride} is larger than windows.crop {self.crop}: pixels between windows "
                "would have no label; use a stride of at most the crop."
            )


@dataclass(frozen=True)
class DecodeConfig:
    """How logits become labels.

    logit_scale: factor on the cosines before the softmax.
    background_threshold: a pixel whose best probability is below it gets the background class.
    ignore_below: a pixel whose best probability is below it gets the ignore label.
    """

    logit_scale: float = 40.0
    background_threshold: float = 0.0
    ignore_below: float = 0.0

    def __post_init__(self) -> None:
        if not self.logit_scale > 0:
            raise ValueError(f"decode.logit_scale must be positive, found {self.logit_scale}.")
        for name in ("background_threshold", "ignore_below"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"decode.{name} is a probability from 0 to 1, found {getattr(self, name)}.")


@dataclass(frozen=True)
class SegmenterConfig:
    """All that decides how a pixel gets its label, but for the weights and the vocabulary."""

    model: ModelConfig = ModelConfig()
    windows: WindowConfig = WindowConfig()
    decode: DecodeConfig = DecodeConfig()


def recipe_fields(config: Any) -> dict[str, Any]:
    """The fields of a configuration that change a mask, nested as the dataclasses are."""
    out: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        if f.metadata.get("changes_mask", True):
            value = getattr(config, f.name)
            out[f.name] = recipe_fields(value) if dataclasses.is_dataclass(value) else value
    return out


def fingerprint(recipe: dict[str, Any]) -> str:
    """Hash of a recipe (nested plain values), the same in every process."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
