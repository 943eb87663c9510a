"""The networks that a configuration names, as architectures: built without weights, and taken apart."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from torch import nn

from proxyclip.config import ModelConfig
from proxyclip.models.networks.clip import ClipEncoder, Tokenizer
from proxyclip.models.networks.clip_timm import as_clip
from proxyclip.models.networks.proxy import TimmProxy, check_scale, is_plain_vit
from proxyclip.models.networks.proxy_maps import FeatureMapProxy, as_proxy
from proxyclip.models.networks.proxy_sam import SamProxy, build_sam_encoder
from proxyclip.recipes.proxies import VFMS, VfmSpec

LOCAL_DIR = "local-dir:"
SAM = "segment-anything/"


def new_clip(config: ModelConfig) -> nn.Module:
    """An open_clip model of the architecture of `config.clip`, with random weights."""
    check_clip_name(config.clip)
    with _quiet_root_logger():  # open_clip warns of random weights
        device = torch.get_default_device()  # open_clip would take the CPU
        model: nn.Module = open_clip.create_model(config.clip, device=device, load_weights=False, pretrained_text=False)
    return model


def check_clip_name(name: str) -> None:
    """ValueError for what is neither a model of open_clip nor a local folder."""
    if not name.startswith(LOCAL_DIR) and name not in open_clip.list_models():
        raise ValueError(
            f"Unknown CLIP {name!r}; give a name of open_clip.list_models() or 'local-dir:FOLDER' "
            "with open_clip_config.json and weights."
        )


def clip_encoder(model: nn.Module, config: ModelConfig) -> ClipEncoder:
    """An open_clip model as `config` uses it."""
    mean, std = _normalisation(config)
    return as_clip(model, _tokenizer(config.clip), mean, std)


def clip_embed_dim(config: ModelConfig) -> int:
    """Width of the text space of a configuration's CLIP, from its architecture alone."""
    if config.clip.startswith(LOCAL_DIR):
        return int(architecture(config.clip)["model_cfg"]["embed_dim"])
    return int(open_clip.get_model_config(config.clip)["embed_dim"])


def new_proxy(config: ModelConfig) -> nn.Module:
    """A timm model, or an image encoder of segment-anything, of the architecture of `config.proxy`; random weights."""
    name = str(config.proxy)
    if name.startswith(LOCAL_DIR):
        return timm.models.VisionTransformer(**architecture(name)["model_args"])
    model = vfm_spec(name).model
    if model.startswith(SAM):
        return build_sam_encoder(model.removeprefix(SAM))
    network: nn.Module = timm.create_model(model, pretrained=False, num_classes=0, **size_arguments(model))
    return network


def proxy_encoder(model: nn.Module, config: ModelConfig, crop: int) -> TimmProxy | FeatureMapProxy | SamProxy:
    """A network of `new_proxy` as `config` uses it. crop: side of a window in pixels, 0 for whole images."""
    name = str(config.proxy)
    if name.startswith(LOCAL_DIR):
        return TimmProxy(model, architecture(name).get("positions", "antialias"))
    spec = vfm_spec(name)
    if spec.model.startswith(SAM):
        return SamProxy(model)
    if not is_plain_vit(model):
        return FeatureMapProxy(model)
    return TimmProxy(model, spec.positions, side_px=crop if spec.square and crop else None)


def check_proxy(config: ModelConfig, crop: int) -> None:
    """ValueError where the proxy does not do what `config` asks of it; found out without its weights."""
    if config.proxy is not None and config.proxy_scale != 1:
        with torch.device("meta"):
            check_scale(proxy_encoder(new_proxy(config), config, crop), config.proxy_scale)


def vfm_spec(name: str) -> VfmSpec:
    """What is known of a proxy by its name, short or timm's; ValueError for an unknown one."""
    if name in VFMS:
        return VFMS[name]
    if timm.is_model(name):
        pretrained = timm.get_pretrained_cfg(name)
        return VfmSpec(name, (pretrained and pretrained.license) or "")
    raise ValueError(
        f"Unknown proxy {name!r}; give one of {', '.join(VFMS)}, the name of a timm vision transformer, "
        "or 'local-dir:FOLDER' with config.json and weights."
    )


def size_arguments(name: str) -> dict[str, Any]:
    """What makes a timm model take windows of any size, if it can; ValueError if it cannot be a proxy at all."""
    with torch.device("meta"):
        proxy = as_proxy(timm.create_model(name, pretrained=False, num_classes=0))
    any_size = isinstance(proxy, FeatureMapProxy) and hasattr(proxy.model, "dynamic_img_size")
    return {"dynamic_img_size": True} if any_size else {}


def architecture(spec: str) -> dict[str, Any]:
    """What a `local-dir:` folder says of its model."""
    folder = Path(spec.removeprefix(LOCAL_DIR))
    for name in ("open_clip_config.json", "config.json"):
        if (folder / name).is_file():
            return json.loads((folder / name).read_text())
    raise FileNotFoundError(f"{folder} holds no open_clip_config.json (CLIP) or config.json (proxy).")


def _normalisation(config: ModelConfig) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    """Mean and standard deviation of the pixels that the weights were trained on, where they are known."""
    if config.clip.startswith(LOCAL_DIR):
        known = architecture(config.clip).get("preprocess_cfg", {})
    else:
        tags = open_clip.list_pretrained_tags_by_model(config.clip)
        tag = config.clip_pretrained if config.clip_pretrained in tags else next(iter(tags), None)
        known = open_clip.get_pretrained_cfg(config.clip, tag) if tag else {}
    return known.get("mean"), known.get("std")


def _tokenizer(clip: str) -> Tokenizer:
    """CLIP's tokenizer, loaded when it is first used: some come from the hub, and jobs with embeddings need none."""

    @functools.cache
    def load() -> Tokenizer:
        try:
            tokenizer: Tokenizer = open_clip.get_tokenizer(clip)
        except ImportError as error:
            raise ValueError(
                f'The tokenizer of CLIP {clip} needs another package: pip install "proxyclip[siglip]".'
            ) from error
        except OSError as error:
            raise FileNotFoundError(
                f"The tokenizer of CLIP {clip} is not on this machine and cannot be had ({type(error).__name__}); "
                "load it once where there is a network, or bring text embeddings (--embeddings)."
            ) from error
        return tokenizer

    return lambda prompts: load()(prompts)


@contextlib.contextmanager
def _quiet_root_logger() -> Iterator[None]:
    logger, level = logging.getLogger(), logging.getLogger().level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
