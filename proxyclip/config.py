"""Every knob: frozen dataclasses, and the fingerprint of those that change a mask."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Any, Literal, get_args

import tyro

# Raise when a change of the code changes masks made with an unchanged configuration.
RECIPE_VERSION = 1

Dtype = Literal["float32", "bfloat16", "float16"]


def _no_mask_change(default: Any) -> Any:
    """A field that leaves every mask as it is, and so stays out of the recipe."""
    return field(default=default, metadata={"changes_mask": False})


@dataclass(frozen=True)
class ModelConfig:
    """Which networks, and how the last block of CLIP mixes its values.

    method: a key of `models.attention.METHODS`. residual: keep or drop the last block's residual path and MLP
    otherwise than the method does.
    clip: an open_clip architecture ("ViT-B-16-quickgelu") or "local-dir:FOLDER".
    clip_pretrained: tag of open_clip's weights; with local files it says only how pixels are normalised.
    clip_weights, proxy_weights: local files that replace the download. Recipes know weights by their
    hash (`models.weights`), so paths do not count.
    proxy: a key of `vfms.VFMS`, the name of a timm vision transformer, or "local-dir:FOLDER".
    proxy_scale: the proxy sees windows at this share of their size, in whole patches (`quality`).
    beta, gamma: shift and scale of the proxy attention (ProxyCLIP, sec. 3.2).
    """

    method: str = "proxyclip"
    residual: bool | None = None
    clip: str = "ViT-B-16-quickgelu"
    clip_pretrained: str = "openai"
    clip_weights: str | None = _no_mask_change(None)
    proxy: str | None = "dino-b8"
    proxy_weights: str | None = _no_mask_change(None)
    proxy_scale: float = 1.0
    beta: float = 1.2
    gamma: float = 3.0
    dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in get_args(Dtype):
            raise ValueError(f"model.dtype is one of {', '.join(get_args(Dtype))}, found {self.dtype!r}.")
        if not 0 < self.proxy_scale <= 1:
            raise ValueError(f"model.proxy_scale is above 0 and at most 1, found {self.proxy_scale}.")


@dataclass(frozen=True)
class WindowConfig:
    """How an image is resized and cut. All in pixels; `crop=0` takes the whole image as one window.

    upsample_twice: a whole image's logits go to the resized image first and then to the original's size, as
    in NACLIP, and not directly. Windows always do.
    fast_decode: JPEGs at least twice as large as they are resized to are decoded at a half, a quarter or an eighth.
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
    area_threshold: a class other than the background that covers at most this share of all pixels that are not
    background cannot win (SCLIP on VOC21); 0: none.
    ignore_below: a pixel whose best probability is below it gets the ignore label.
    pamr_steps, pamr_dilations: refinement of the logits along the image's edges (`models.refine`); 0 steps: none.
    """

    logit_scale: float = 40.0
    background_threshold: float = 0.0
    area_threshold: float = 0.0
    ignore_below: float = 0.0
    pamr_steps: int = 0
    pamr_dilations: tuple[int, ...] = (8, 16)

    def __post_init__(self) -> None:
        if not 0 < self.logit_scale < math.inf:
            raise ValueError(f"decode.logit_scale must be positive and finite, found {self.logit_scale}.")
        for name in ("background_threshold", "area_threshold", "ignore_below"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"decode.{name} is a share from 0 to 1, found {getattr(self, name)}.")
        if self.pamr_steps < 0 or not self.pamr_dilations or min(self.pamr_dilations) < 1:
            raise ValueError(
                f"decode.pamr_steps is 0 or more and pamr_dilations 1 or more, found {self.pamr_steps} and "
                f"{self.pamr_dilations}."
            )


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


def _unset(default: str, metavar: str) -> Any:
    """How --help shows an option whose default is found out later."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


@dataclass(frozen=True)
class LabelOptions:
    """Label every image under a prefix with the classes of a vocabulary.

    Run the same command again to go on where a run stopped. Exit code: 0, all images are labelled;
    1, not finished (see the last lines); 2, the command is wrong; 3, finished, but some images are in
    failures/ (0 if --max-failures allows them).
    """

    input: str
    """Folder or prefix of images: a path, file:// or s3://BUCKET/PREFIX (endpoint and credentials from AWS_*)."""
    output: str
    """Folder or prefix to write to; made if absent."""
    vocabulary: Annotated[str | None, _unset("the benchmark's", "NAME|FILE")] = None
    """Bundled name (voc21, ade20k, ...) or a .txt (one class per line, synonyms by "; "), .json or .yaml file."""

    benchmark: Annotated[str | None, _unset("none", "NAME")] = None
    """The paper's settings of --preset for a benchmark, and its classes: voc21, voc20, context60, context59,
    context459, cityscapes, ade20k, ade847, coco_object or coco_stuff."""
    embeddings: Annotated[str | None, _unset("made by CLIP's text tower", "FILE")] = None
    """Safetensors file with one text embedding per query of the vocabulary; replaces CLIP's text tower."""
    preset: str = "proxyclip-b16-dino-b8"
    """Named recipe: method, CLIP, proxy and settings; the options down to --dtype replace its parts."""
    method: Annotated[str | None, _unset("the preset's", "STR")] = None
    """How CLIP's last block mixes patches: proxyclip, clip, maskclip, sclip, clearclip, gem, naclip, naclip-kk."""
    clip: Annotated[str | None, _unset("the preset's", "STR")] = None
    """open_clip model, or local-dir:FOLDER."""
    clip_pretrained: Annotated[str | None, _unset("the preset's", "STR")] = None
    """Tag of open_clip's weights for --clip."""
    clip_weights: Annotated[str | None, _unset("downloaded by name", "FILE")] = None
    """Local weights of CLIP."""
    proxy: Annotated[str | None, _unset("the preset's", "STR")] = None
    """A name of the README (dino-b8, dinov3-b16, sam-b, ...), a timm vision transformer, or local-dir:FOLDER."""
    proxy_weights: Annotated[str | None, _unset("downloaded by name", "FILE")] = None
    """Local weights of the proxy."""
    short_side: Annotated[int | None, _unset("the preset's", "INT")] = None
    """Pixels of the short side after resizing."""
    crop: Annotated[int | None, _unset("the preset's", "INT")] = None
    """Pixels of a window's side; 0 takes the whole image."""
    stride: Annotated[int | None, _unset("the preset's", "INT")] = None
    """Pixels between windows."""
    logit_scale: Annotated[float | None, _unset("the preset's", "FLOAT")] = None
    """Factor on the cosines before the softmax."""
    background_threshold: Annotated[float | None, _unset("the paper's for preset and vocabulary, else 0", "FLOAT")] = (
        None
    )
    """Probability below which a pixel is background."""
    area_threshold: Annotated[float | None, _unset("the benchmark's, else 0", "FLOAT")] = None
    """Share of what is not background that a class must exceed in an image to keep its pixels (SCLIP)."""
    ignore_below: float = 0.0
    """Confidence below which a pixel is written as ignore (255, or 65535 above 255 classes)."""
    pamr_steps: Annotated[int | None, _unset("the preset's", "INT")] = None
    """Steps of PAMR, which refines the labels along the image's edges; 0 for none."""
    quality: str = "exact"
    """exact: the settings as they are; balanced, fast: less overlap of windows and a smaller proxy (see the README)."""
    fast_decode: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Decode JPEGs at least twice as large as they are resized to at a half, a quarter or an eighth: less work for
    the CPUs, slightly other masks."""
    confidence_stride: int = 4
    """Confidence maps are written as means of blocks of this many pixels squared; 1 keeps every pixel."""
    dtype: Annotated[
        Dtype | None,
        _unset("the resumed run's, else bfloat16 on GPUs and float32 on CPUs", "{float32,bfloat16,float16}"),
    ] = None
    """Precision of the networks."""

    shard_size: int = 256
    """Images per shard, the unit of work and of recovery (fewer where they exceed 128 MiB)."""
    concurrency: int = 1
    """Actors that hold the networks and work side by side."""
    num_gpus: Annotated[float | None, _unset("1 where the cluster has GPUs, else 0", "FLOAT")] = None
    """GPUs per actor; fractions let actors share one."""
    threads: Annotated[int | None, _unset("this machine's cores / concurrency", "INT")] = None
    """CPU threads of each actor."""
    batch_windows: int = 8
    """Windows that go through the networks together on a GPU; on a CPU they go one by one."""
    image_timeout_s: float = 60.0
    """Seconds that decoding one image may take; then it fails as timed_out."""
    max_failures: Annotated[str | None, _unset("no limit", "COUNT|SHARE")] = None
    """Stop when more images than this cannot be read: a count (25) or a share of the corpus (5%, 0.05)."""
    address: Annotated[str | None, _unset("RAY_ADDRESS, which ray job submit sets, else one is started", "STR")] = None
    """Ray cluster to join."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"]), tyro.conf.FlagCreatePairsOff] = False
    """Show Ray's own logs and progress."""

    def __post_init__(self) -> None:
        for name in ("shard_size", "concurrency", "batch_windows", "confidence_stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, found {getattr(self, name)}.")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads must be at least 1, found {self.threads}.")
        if not 0 < self.image_timeout_s <= 86400:
            raise ValueError(f"--image-timeout-s is above 0 and at most a day, found {self.image_timeout_s}.")
        if self.num_gpus is not None and (self.num_gpus < 0 or (self.num_gpus > 1 and self.num_gpus % 1)):
            raise ValueError(f"--num-gpus is a fraction below 1 or a whole number, found {self.num_gpus}.")
        allowed_failures(self.max_failures, 1)
        if self.vocabulary is None and self.benchmark is None:
            raise ValueError(
                "--vocabulary is missing; give a bundled name or a file (or --benchmark, which has its own)."
            )


def allowed_failures(limit: str | None, num_images: int) -> int | None:
    """How many of `num_images` may fail under a --max-failures value; None allows all."""
    if limit is None:
        return None
    text = limit.strip()
    try:
        if text.endswith("%") or "." in text:
            share = Fraction(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
            if 0 <= share <= 1:
                return int(share * num_images)
        elif int(text) >= 0:
            return int(text)
    except ValueError:
        pass
    raise ValueError(f"--max-failures is a count (25) or a share (5%, 0.05), found {limit!r}.")
