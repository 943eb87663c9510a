"""The recipe of a run: preset and options put together, and all that decides the bytes of a mask."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import Any

from proxyclip.config import RECIPE_VERSION, LabelOptions, SegmenterConfig, recipe_fields
from proxyclip.models.attention import method_named
from proxyclip.models.networks.build import LOCAL_DIR
from proxyclip.recipes.presets import benchmark, preset
from proxyclip.recipes.quality import quality
from proxyclip.vocabulary.names import Vocabulary

# Packages whose versions are recorded with a run; they may change the last bits of a result.
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


def segmenter_config(options: LabelOptions, vocabulary: Vocabulary) -> SegmenterConfig:
    """The preset with what the options replace. ValueError for unknown names and what does not go together."""
    chosen = preset(options.preset)
    config = chosen.config if options.benchmark is None else benchmark(options.preset, options.benchmark)
    config = quality(options.quality).applied_to(config)
    model = replace(
        config.model, **_given(options, "method", "clip", "clip_pretrained", "clip_weights", "proxy", "proxy_weights")
    )
    if method_named(model.method).attention is not None:
        if options.proxy or options.proxy_weights:
            raise ValueError(f"--method {model.method} uses no proxy; leave out --proxy and --proxy-weights.")
        model = replace(model, proxy=None, proxy_weights=None, proxy_scale=1.0)
    elif model.proxy is None:
        raise ValueError(
            f"--method {model.method} needs a proxy, and preset {options.preset!r} has none; give --proxy."
        )
    decode = replace(
        config.decode,
        ignore_below=options.ignore_below,
        **_given(options, "logit_scale", "background_threshold", "area_threshold", "pamr_steps"),
    )
    known = chosen.benchmarks.get(vocabulary.name)
    if known is not None and options.benchmark is None and options.background_threshold is None:
        decode = replace(decode, background_threshold=known.background_threshold)
    for name in ("background_threshold", "area_threshold"):
        if getattr(decode, name) > 0 and vocabulary.background is None:
            raise ValueError(
                f"--{name.replace('_', '-')} {getattr(decode, name)}: vocabulary {vocabulary.name!r} has no background "
                "class; name one in its file, or leave the threshold out."
            )
    windows = replace(
        config.windows, fast_decode=options.fast_decode, **_given(options, "short_side", "crop", "stride")
    )
    return SegmenterConfig(model, windows, decode)


def _given(options: LabelOptions, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def recipe_of(
    config: SegmenterConfig, hashes: dict[str, str], vocabulary: Vocabulary, options: LabelOptions
) -> dict[str, Any]:
    """All that decides the bytes of a mask. Local folders go by the hash of what is in them."""
    segmenter = recipe_fields(config)
    for part in ("clip", "proxy"):
        if str(segmenter["model"][part]).startswith(LOCAL_DIR):
            segmenter["model"][part] = LOCAL_DIR
    return {
        "version": RECIPE_VERSION,
        "segmenter": segmenter,
        "weights": hashes,
        "vocabulary": vocabulary.fingerprint,
        "confidence_stride": options.confidence_stride,
    }


def package_versions() -> dict[str, str]:
    return {name: version(name) for name in _RECORDED}
