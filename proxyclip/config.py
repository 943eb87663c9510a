"""The settings that decide a mask, as frozen dataclasses, and the fingerprint of a recipe."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

# Raise this when a change of the code changes the masks of an unchanged configuration.
RECIPE_VERSION = 1

Dtype = Literal["float32", "bfloat16", "float16", "int8"]
AskedDtype = Literal["auto", Dtype]


def _no_mask_change(default: Any) -> Any:
    """A field that changes no mask and so is not part of the recipe."""
    return field(default=default, metadata={"changes_mask": False})


def _in_recipe_if_set(default: Any) -> Any:
    """A field that recipes contain only with another value than the default: so older recipes stay as they are."""
    return field(default=default, metadata={"only_if_set": True})


def _check_dtype(dtype: str) -> None:
    if dtype not in get_args(Dtype):
        raise ValueError(f"model.dtype is {dtype!r}; it must be one of {', '.join(get_args(Dtype))}.")


@dataclass(frozen=True)
class ModelConfig:
    """Which networks, and how the last block of CLIP mixes its values.

    method: a key of `recipes.methods.METHODS`.
    residual: whether the last block keeps its residual path and its MLP; None: as the method says.
    clip: an open_clip architecture ("ViT-B-16-quickgelu") or "local-dir:FOLDER".
    clip_pretrained: tag of open_clip's weights. With local files it only says how pixels are normalised.
    clip_weights, proxy_weights: files, by path or URI, that replace the download. A recipe holds the hash of the
    weights (`recipes.weights`), not their path.
    weights: a folder or prefix that `proxyclip fetch-weights` filled, in place of downloads (`recipes.bundle`).
    proxy: a key of `recipes.proxies.VFMS`, the name of a timm vision transformer, or "local-dir:FOLDER".
    proxy_scale: the proxy sees windows at this share of their size, rounded to whole patches.
    beta, gamma: shift and scale of the proxy attention (ProxyCLIP, sec. 3.2).
    gaussian_std: width of NACLIP's Gaussian, in patches. Other methods do not use it.
    """

    method: str = "proxyclip"
    residual: bool | None = None
    clip: str = "ViT-B-16-quickgelu"
    clip_pretrained: str = "openai"
    clip_weights: str | None = _no_mask_change(None)
    proxy: str | None = "dino-b8"
    proxy_weights: str | None = _no_mask_change(None)
    weights: str | None = _no_mask_change(None)
    proxy_scale: float = 1.0
    beta: float = 1.2
    gamma: float = 3.0
    gaussian_std: float = 5.0
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)
        if not 0 < self.proxy_scale <= 1:
            raise ValueError(f"model.proxy_scale is {self.proxy_scale}; it must be above 0 and at most 1.")
        if not 1e-3 <= self.gaussian_std <= 1e6:
            raise ValueError(f"model.gaussian_std is {self.gaussian_std}; it must be from 0.001 to 1000000 patches.")


@dataclass(frozen=True)
class WindowConfig:
    """How an image is resized and cut, in pixels. With `crop=0` the whole image is one window.

    upsample_twice: with `crop=0`, logits are upsampled to the resized image and then to the original (NACLIP), not
    directly to the original. With windows they always are.
    fast_decode: large JPEGs are decoded at a half, a quarter or an eighth, if that is still large enough.
    """

    short_side: int = 336
    long_side: int = 2048
    crop: int = 336
    stride: int = 112
    pad_multiple: int = 56
    upsample_twice: bool = False
    fast_decode: bool = False

    def __post_init__(self) -> None:
        for name in ("short_side", "long_side", "stride", "pad_multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"windows.{name} is {getattr(self, name)}; it must be at least 1 pixel.")
        if self.crop < 0:
            raise ValueError(f"windows.crop is {self.crop}; it must be 0 (whole image) or more.")
        if 0 < self.crop < self.stride:
            raise ValueError(
                f"windows.stride {self.stride} is larger than windows.crop {self.crop}, so pixels between windows "
                "would have no label. Use a stride of at most the crop."
            )


# Levels at which dense features are stored (`models.codec`).
CODEC_NAMES = ("compact", "exact")


@dataclass(frozen=True)
class DecodeConfig:
    """How logits become labels.

    logit_scale: factor on the cosines before the softmax.
    background_threshold: a pixel whose best probability is below this becomes background.
    area_threshold: a class loses its pixels if it covers at most this share of the pixels that are not background
    (SCLIP on VOC21). 0 switches this off.
    ignore_below: a pixel whose best probability is below this gets the ignore label.
    thresholds: the same, with a value for each class of the vocabulary (`vocabulary.thresholds`). Empty: none.
    pamr_steps, pamr_dilations: refinement along the edges of the image (`models.decoding.refine`). 0 steps: none.
    guided_radius: refinement by a guided filter of this radius in patches (`models.decoding.guided`). 0: none.
    presence: exponent of a prior on the classes: the mean of a class's probabilities over the image
    (`models.decoding.presence`). 0: none.
    active: decode only so many classes, those with the highest such mean, and the background. 0: all classes.
    """

    logit_scale: float = 40.0
    background_threshold: float = 0.0
    area_threshold: float = 0.0
    ignore_below: float = 0.0
    pamr_steps: int = 0
    pamr_dilations: tuple[int, ...] = (8, 16)
    thresholds: tuple[float, ...] = _in_recipe_if_set(())
    guided_radius: int = _in_recipe_if_set(0)
    presence: float = _in_recipe_if_set(0.0)
    active: int = _in_recipe_if_set(0)

    @property
    def needs_image(self) -> bool:
        """Whether decoding looks at the image, not only at its features."""
        return self.pamr_steps > 0 or self.guided_radius > 0

    def __post_init__(self) -> None:
        if not 0 < self.logit_scale < math.inf:
            raise ValueError(f"decode.logit_scale is {self.logit_scale}; it must be positive and finite.")
        for name in ("background_threshold", "area_threshold", "ignore_below"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"decode.{name} is {getattr(self, name)}; it must be from 0 to 1.")
        if not all(value >= 0 for value in self.thresholds):  # nor NaN
            raise ValueError(f"decode.thresholds are {self.thresholds}; none may be negative.")
        if self.thresholds and self.ignore_below:
            raise ValueError("decode.thresholds replace decode.ignore_below; set one of them.")
        if self.pamr_steps < 0 or not self.pamr_dilations or min(self.pamr_dilations) < 1:
            raise ValueError(
                f"decode.pamr_steps is {self.pamr_steps} and pamr_dilations are {self.pamr_dilations}; the steps must "
                "be 0 or more, the dilations 1 or more."
            )
        if self.guided_radius < 0:
            raise ValueError(f"decode.guided_radius is {self.guided_radius}; it must be 0 patches or more.")
        if self.guided_radius and self.pamr_steps:
            raise ValueError(
                f"decode.guided_radius is {self.guided_radius} and decode.pamr_steps is {self.pamr_steps}: both refine "
                "borders, so set one of them to 0."
            )
        if not 0 <= self.presence < math.inf:
            raise ValueError(f"decode.presence is {self.presence}; it must be 0 or more, and finite.")
        if self.active < 0:
            raise ValueError(f"decode.active is {self.active}; it must be 0 classes (all) or more.")


@dataclass(frozen=True)
class SegmenterConfig:
    """All settings that decide how a pixel gets its label; weights and vocabulary come on top."""

    model: ModelConfig = ModelConfig()
    windows: WindowConfig = WindowConfig()
    decode: DecodeConfig = DecodeConfig()


@dataclass(frozen=True)
class TeacherModel:
    """A teacher: a network with its own way from an image to labels (`recipes.teachers`).

    method: a key of `recipes.teachers.TEACHERS`, or a method that a plug-in registers. settings: all of its settings,
    as JSON values. weights: the file or folder of its weights. A recipe holds their hashes, not their path.
    """

    method: str
    settings: Mapping[str, Any]
    weights: str | None = _no_mask_change(None)
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)


@dataclass(frozen=True)
class TeacherConfig:
    """All settings that decide how a teacher labels a pixel. Of `decode` it uses the thresholds on the confidence."""

    model: TeacherModel
    decode: DecodeConfig = DecodeConfig()


RunConfig: TypeAlias = SegmenterConfig | TeacherConfig


def recipe_fields(config: Any) -> dict[str, Any]:
    """The fields of a configuration that change a mask, nested as the dataclasses are."""
    out: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        if f.metadata.get("changes_mask", True):
            value = getattr(config, f.name)
            if f.metadata.get("only_if_set") and value == f.default:
                continue
            out[f.name] = recipe_fields(value) if dataclasses.is_dataclass(value) else value
    return out


def fingerprint(recipe: dict[str, Any]) -> str:
    """Hash of a recipe (nested plain values), the same in every process."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
