"""The recipe of a run: a preset with the options that replace parts of it, and all that decides the bytes of a mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from proxyclip.config import RECIPE_VERSION, DecodeConfig, RunConfig, SegmenterConfig, recipe_fields
from proxyclip.dataset.features.record import FeatureRecord
from proxyclip.dataset.reading.thresholds import load_thresholds
from proxyclip.pipeline.options import LabelOptions
from proxyclip.recipes.architectures import LOCAL_DIR, embed_dim
from proxyclip.recipes.methods import method_named
from proxyclip.recipes.presets import preset_at
from proxyclip.recipes.quality import quality
from proxyclip.storage.store import Storage, public_uri
from proxyclip.vocabulary.names import Vocabulary

# The versions of these packages are recorded with a run: they may change the last bits of a result.
_RECORDED = (
    "proxyclip",
    "ray",
    "torch",
    "open_clip_torch",
    "timm",
    "pillow",
    "opencv-python-headless",
    "pyarrow",
    "numpy",
)


def segmenter_config(options: LabelOptions, vocabulary: Vocabulary | None) -> SegmenterConfig:
    """The preset with what the options replace. Raises ValueError for unknown names and for contradictions."""
    preset = preset_at(options.preset, options.benchmark)
    config = quality(options.quality).applied_to(preset.config)
    model = replace(
        config.model,
        **_given(
            options, "method", "clip", "clip_pretrained", "clip_weights", "proxy", "proxy_weights", "gaussian_std"
        ),
    )
    if options.weights is not None:
        model = replace(model, weights=Storage(options.weights).uri)
    if not method_named(model.method).needs_proxy:
        if options.proxy or options.proxy_weights:
            raise ValueError(f"--method {model.method} uses no proxy; leave out --proxy and --proxy-weights.")
        if options.dtype == "int8":
            raise ValueError(f"--dtype int8 is for the proxy, and method {model.method} has none; choose another.")
        model = replace(model, proxy=None, proxy_weights=None, proxy_scale=1.0)
    elif model.proxy is None:
        raise ValueError(
            f"--method {model.method} needs a proxy, and preset {options.preset!r} has none; give --proxy."
        )
    if options.method_settings is not None or options.method_weights is not None:
        raise ValueError(
            f"--method {model.method} takes no --method-settings and no --method-weights; they belong to methods with "
            "a network of their own, such as sam3."
        )
    decode = replace(
        config.decode,
        ignore_below=options.ignore_below,
        thresholds=class_thresholds(options, vocabulary),
        guided_radius=options.guided_radius,
        presence=options.presence,
        active=options.active,
        **_given(options, "logit_scale", "background_threshold", "area_threshold", "pamr_steps"),
    )
    published = preset.benchmarks.get(vocabulary.name) if vocabulary else None
    if published is not None and options.benchmark is None and options.background_threshold is None:
        decode = replace(decode, background_threshold=published.background_threshold)
    check_background(decode, vocabulary)
    windows = replace(
        config.windows, fast_decode=options.fast_decode, **_given(options, "short_side", "crop", "stride")
    )
    return SegmenterConfig(model, windows, decode)


def check_background(decode: DecodeConfig, vocabulary: Vocabulary | None) -> None:
    """ValueError if a threshold makes pixels background, and the vocabulary has no background class."""
    for name in ("background_threshold", "area_threshold"):
        if getattr(decode, name) > 0 and vocabulary is not None and vocabulary.background is None:
            raise ValueError(
                f"--{name.replace('_', '-')} is {getattr(decode, name)}, but vocabulary {vocabulary.name!r} has no "
                "background class. Name one in its file, or leave the threshold out."
            )


def class_thresholds(options: LabelOptions, vocabulary: Vocabulary | None) -> tuple[float, ...]:
    """The threshold of each class, from --thresholds; empty without it."""
    if options.thresholds is None or vocabulary is None:
        return ()
    return load_thresholds(options.thresholds, vocabulary).values


def _given(options: LabelOptions, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def recipe_of(
    config: RunConfig,
    weights: dict[str, str],
    vocabulary: Vocabulary | None,
    confidence_stride: int,
    regions: str | None = None,
) -> dict[str, Any]:
    """All that decides the bytes of a mask. Local folders count by their content, not by their path.

    weights: the hash of each weight file, by part or file. vocabulary: None for an output that keeps features only.
    regions: where they lie; recipes without regions are those of earlier versions.
    """
    segmenter = recipe_fields(config)
    for part in ("clip", "proxy"):  # a teacher has neither
        if str(segmenter["model"].get(part)).startswith(LOCAL_DIR):
            segmenter["model"][part] = LOCAL_DIR
    return {
        "version": RECIPE_VERSION,
        "segmenter": segmenter,
        "weights": weights,
        "vocabulary": vocabulary.fingerprint if vocabulary else None,
        "confidence_stride": confidence_stride,
        **({} if regions is None else {"regions": public_uri(regions)}),
    }


def encoder_of(config: SegmenterConfig, weights: dict[str, str]) -> dict[str, Any]:
    """All that decides a feature: the parts of a recipe that know no vocabulary."""
    recipe = recipe_of(config, weights, None, 1)
    return {**{part: recipe["segmenter"][part] for part in ("model", "windows")}, "weights": weights}


def feature_record(
    options: LabelOptions, config: SegmenterConfig, weights: dict[str, str], codec: str
) -> FeatureRecord:
    """What an output says of its features: what decides them, and what embeds a vocabulary for them."""
    model = config.model
    return FeatureRecord(
        codec=codec,
        dim=embed_dim(model),
        encoder=encoder_of(config, weights),
        settings={
            "preset": options.preset,
            "quality": options.quality,
            "clip": model.clip,
            "clip_pretrained": model.clip_pretrained,
            "clip_weights": model.clip_weights and public_uri(model.clip_weights),
            "weights": model.weights and public_uri(model.weights),
        },
    )


def package_versions(others: Mapping[str, str] | None = None) -> dict[str, str]:
    """The versions of the packages that may change the last bits of a result. others: those of a teacher's packages."""
    return {**{name: version(name) for name in _RECORDED}, **(others or {})}
