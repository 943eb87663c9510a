"""Presets: recipes by name, with the licences of their weights and their published figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from proxyclip.config import DecodeConfig, ModelConfig, SegmenterConfig, WindowConfig
from proxyclip.recipes.benchmarks import BENCHMARKS, SETTINGS, BenchmarkSettings
from proxyclip.recipes.names import look_up
from proxyclip.recipes.proxies import VFMS

_DEMO = Path(__file__).parents[1] / "demo"


@dataclass(frozen=True)
class Preset:
    """A recipe with its licences and figures.

    licences: of the weights, by part ("clip", "proxy"). benchmarks: the paper's settings for each benchmark.
    published_miou: the paper's mIoU in percent for each benchmark, measured at that benchmark's settings.
    """

    config: SegmenterConfig
    licences: Mapping[str, str]
    benchmarks: Mapping[str, BenchmarkSettings] = field(default_factory=dict)
    published_miou: Mapping[str, float] = field(default_factory=dict)


PUBLISHED_ON = ("voc21", "context60", "coco_object", "voc20", "cityscapes", "context59", "ade20k", "coco_stuff")
_CLIPS = {
    "b16": ("ViT-B-16-quickgelu", "openai", "MIT"),
    "l14": ("ViT-L-14-quickgelu", "openai", "MIT"),
    "h14": ("ViT-H-14", "laion2b_s32b_b79k", "MIT"),
}
_PROXIES = (
    "dino-s8",
    "dino-s16",
    "dino-b8",
    "dino-b16",
    "dinov2-b14",
    "dinov2-reg-b14",
    "dinov3-b16",
    "pe-spatial-b16",
    "radio-v3-b16",
    "mae-b16",
    "sam-b",
)
_PUBLISHED = {
    ("b16", "dino-b8"): (61.3, 35.3, 37.5, 80.3, 38.1, 39.1, 20.2, 26.5),
    ("b16", "dino-b16"): (59.1, 35.2, 36.2, 78.2, 38.1, 38.8, 19.6, 26.2),
    ("b16", "dinov2-reg-b14"): (58.6, 33.8, 37.4, 83.0, 33.9, 37.2, 19.7, 25.4),
    ("h14", "dino-b8"): (65.0, 35.4, 38.6, 83.3, 42.0, 39.6, 24.2, 26.8),
}


def _proxyclip(clip: str, proxy: str) -> Preset:
    architecture, pretrained, licence = _CLIPS[clip]
    return Preset(
        SegmenterConfig(ModelConfig(clip=architecture, clip_pretrained=pretrained, proxy=proxy)),
        licences={"clip": licence, "proxy": VFMS[proxy].licence},
        benchmarks=SETTINGS["proxyclip"],
        published_miou=dict(zip(PUBLISHED_ON, _PUBLISHED.get((clip, proxy), ()), strict=False)),
    )


# Methods without a proxy: their windows, decoding, and published mIoU with ViT-B/16.
_FAMILY = {
    "clip": (
        WindowConfig(short_side=448, crop=448, stride=224, pad_multiple=16),
        DecodeConfig(),
        (16.4, 8.4, 5.6, 41.9, 5.0, 9.2, 2.9, 4.4),
    ),
    "maskclip": (
        WindowConfig(short_side=448, crop=448, stride=224, pad_multiple=16),
        DecodeConfig(),
        (43.4, 23.2, 20.6, 74.9, 24.9, 26.4, 11.9, 16.7),
    ),
    "clearclip": (
        WindowConfig(short_side=448, crop=448, stride=224, pad_multiple=16),
        DecodeConfig(logit_scale=50.0),
        (51.8, 32.6, 33.0, 80.9, 30.0, 35.9, 16.7, 23.9),
    ),
    "gem": (
        WindowConfig(short_side=448, crop=448, stride=224, pad_multiple=16),
        DecodeConfig(),
        (),
    ),
    "naclip": (
        WindowConfig(short_side=336, crop=224, stride=112, pad_multiple=1, upsample_twice=True),
        DecodeConfig(pamr_steps=10),
        (64.1, 35.0, 36.2, 83.0, 38.3, 38.4, 19.1, 25.7),
    ),
    "sclip": (
        WindowConfig(short_side=336, crop=224, stride=112, pad_multiple=1),
        DecodeConfig(),
        (59.1, 30.4, 30.5, 80.4, 32.2, 34.2, 16.1, 22.4),
    ),
}


def _without_proxy(method: str, clip: str) -> Preset:
    architecture, pretrained, licence = _CLIPS[clip]
    windows, decode, published = _FAMILY[method]
    return Preset(
        SegmenterConfig(
            ModelConfig(method=method, clip=architecture, clip_pretrained=pretrained, proxy=None), windows, decode
        ),
        licences={"clip": licence},
        benchmarks=SETTINGS.get(method, {}),
        published_miou=dict(zip(PUBLISHED_ON, published, strict=False)) if clip == "b16" else {},
    )


PRESETS: dict[str, Preset] = {
    f"proxyclip-{clip}-{proxy}": _proxyclip(clip, proxy) for clip in _CLIPS for proxy in _PROXIES
}
PRESETS |= {f"{method}-{clip}": _without_proxy(method, clip) for method in _FAMILY for clip in _CLIPS}
PRESETS["demo"] = Preset(
    SegmenterConfig(
        ModelConfig(clip=f"local-dir:{_DEMO / 'clip'}", clip_pretrained="", proxy=f"local-dir:{_DEMO / 'proxy'}"),
        WindowConfig(short_side=224, crop=112, stride=56),
        DecodeConfig(),
    ),
    licences={"clip": "Apache-2.0", "proxy": "Apache-2.0"},
)


def preset(name: str) -> Preset:
    """The preset with this name; ValueError if there is none."""
    return look_up(PRESETS, name, "preset")


def preset_at(name: str, benchmark: str | None) -> Preset:
    """A preset whose `config` has the paper's settings for a benchmark; None: the preset as it is.

    benchmark: the name of its vocabulary ("voc21"). Raises ValueError for unknown names, and if the paper gives no
    settings for this benchmark.
    """
    chosen = preset(name)
    if benchmark is None:
        return chosen
    look_up(BENCHMARKS, benchmark, "benchmark")
    if benchmark not in chosen.benchmarks:
        known = ", ".join(chosen.benchmarks) or "none"
        raise ValueError(
            f"Preset {name!r} has no published settings for benchmark {benchmark!r}; it has settings for: {known}."
        )
    return replace(chosen, config=chosen.benchmarks[benchmark].applied_to(chosen.config))
