"""Architectures by name: whether a CLIP or a proxy exists, and what is known of it without its weights.

This file imports timm, and so torch, only for proxies that VFMS does not list.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proxyclip.config import ModelConfig
from proxyclip.recipes.proxies import VFMS, VfmSpec

LOCAL_DIR = "local-dir:"
SAM = "segment-anything/"


def embed_dim(config: ModelConfig) -> int:
    """The width of the text embeddings of a configuration's CLIP."""
    described = clip_architecture(config.clip)
    if "embed_dim" not in described:
        raise ValueError(f"The architecture of CLIP {config.clip} names no embed_dim; add it to its configuration.")
    return int(described["embed_dim"])


def clip_architecture(name: str) -> dict[str, Any]:
    """open_clip's description of a CLIP. ValueError for an unknown name."""
    check_clip_name(name)
    if name.startswith(LOCAL_DIR):
        described = local_architecture(name)
        described = described.get("model_cfg", described)
    elif name in _clip_architectures():
        described = json.loads(_clip_architectures()[name].read_text())
    else:
        import open_clip

        described = open_clip.get_model_config(name)
    return dict(described)


def check_clip_name(name: str) -> None:
    """ValueError unless `name` is an architecture of open_clip or a local folder."""
    if name.startswith(LOCAL_DIR) or name in _clip_architectures():
        return
    if (open_clip := sys.modules.get("open_clip")) and name in open_clip.list_models():
        return  # a program may add architectures of its own to open_clip
    raise ValueError(
        f"Unknown CLIP {name!r}.{_did_you_mean(name, _clip_architectures())} Give a name of open_clip.list_models(), "
        f"or {LOCAL_DIR}FOLDER with open_clip_config.json and weights."
    )


def is_listed_proxy(name: str) -> bool:
    """Whether the tables here say all about a proxy. Of other timm models, only the network can tell if it fits."""
    return name in VFMS or name.startswith(LOCAL_DIR)


def vfm_spec(name: str) -> VfmSpec:
    """What is known about a proxy: a name of VFMS, or of any timm model. ValueError for an unknown name."""
    if name in VFMS:
        return VFMS[name]
    if _may_be_timms(name):
        import timm

        if timm.is_model(name):
            try:
                pretrained = timm.get_pretrained_cfg(name)
            except RuntimeError as error:  # the model exists, its tag does not
                known = ", ".join(timm.list_pretrained(f"{name.split('.')[0]}.*"))
                raise ValueError(f"timm has no weights {name}; it has: {known}.") from error
            return VfmSpec(name, (pretrained and pretrained.license) or "")
    raise ValueError(
        f"Unknown proxy {name!r}.{_did_you_mean(name, VFMS)} Give the name of a timm vision transformer, "
        f"{LOCAL_DIR}FOLDER with config.json and weights, or one of: {', '.join(VFMS)}."
    )


def check_proxy_scale(config: ModelConfig, crop: int) -> None:
    """ValueError if the proxy cannot use `config.proxy_scale` with windows of `crop` pixels (0: whole images).

    Checks the names of VFMS; `models.networks.build.check_proxy` checks any network.
    """
    spec = VFMS.get(config.proxy or "")
    if config.proxy_scale != 1 and spec is not None and (spec.fixed_size or (spec.square and crop)):
        raise scale_error(config.proxy_scale)


def scale_error(scale: float) -> ValueError:
    """The error for a proxy that resizes every window to one size, so that smaller windows save nothing."""
    return ValueError(
        f"--quality (model.proxy_scale {scale:g}) gives the proxy smaller windows, but this proxy resizes every "
        "window to a square of its own size, so this saves nothing. Use --quality exact, or a proxy such as dino-b8."
    )


def local_architecture(spec: str) -> dict[str, Any]:
    """The configuration of the model in a `local-dir:` folder."""
    folder = Path(spec.removeprefix(LOCAL_DIR))
    for name in ("open_clip_config.json", "config.json"):
        if (folder / name).is_file():
            try:
                return json.loads((folder / name).read_text())
            except ValueError as error:
                raise ValueError(f"{folder / name} is not valid JSON: {error}.") from error
    raise FileNotFoundError(f"{folder} contains no open_clip_config.json (for CLIP) or config.json (for a proxy).")


def _did_you_mean(name: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


@functools.cache
def _clip_architectures() -> dict[str, Path]:
    """The files that describe open_clip's architectures. Importing open_clip would load torch."""
    return {path.stem: path for path in sorted((_package("open_clip") / "model_configs").glob("*.json"))}


def _may_be_timms(name: str) -> bool:
    """Whether timm may have a model of this name. Its source files tell without importing it, which loads torch."""
    model = name.split(".")[0]
    if "timm" in sys.modules:
        return True
    sources = (path.read_text(encoding="utf-8") for path in (_package("timm") / "models").glob("*.py"))
    return any(f"def {model}(" in source or f"'{model}'" in source for source in sources)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ImportError(f"The package {name} is not installed; install proxyclip with its dependencies.")
    return Path(spec.origin).parent
