"""The networks that a configuration names, without their weights."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import open_clip
import timm
import torch
from torch import nn

from proxyclip.config import ModelConfig
from proxyclip.models.networks.clip import ClipEncoder, Tokenizer
from proxyclip.models.networks.clip_timm import as_clip
from proxyclip.models.networks.proxy import Proxy, TimmProxy, check_scale, is_plain_vit
from proxyclip.models.networks.proxy_maps import FeatureMapProxy, as_proxy
from proxyclip.models.networks.proxy_sam import SamProxy, build_sam_encoder
from proxyclip.recipes.architectures import LOCAL_DIR, SAM, check_clip_name, local_architecture, vfm_spec
from proxyclip.recipes.bundle.tokenizer import tokenizer_folder


def new_clip(config: ModelConfig) -> nn.Module:
    """An open_clip model of the architecture of `config.clip`, with random weights."""
    check_clip_name(config.clip)
    with _quiet_root_logger():  # open_clip warns about random weights
        # open_clip's own default is the CPU. get_default_device of torch 2.6 does not see `with torch.device(...)`.
        device = torch.empty(0).device
        model: nn.Module = open_clip.create_model(config.clip, device=device, load_weights=False, pretrained_text=False)
    return model


def clip_encoder(model: nn.Module, config: ModelConfig) -> ClipEncoder:
    """The encoder of an open_clip model, with the tokenizer and the pixel mean and std of `config`."""
    mean, std = _normalisation(config)
    return as_clip(model, lazy_tokenizer(config.clip, config.weights), mean, std)


def new_proxy(config: ModelConfig) -> nn.Module:
    """A timm model, or segment-anything's image encoder, of the architecture of `config.proxy`, with random weights."""
    name = str(config.proxy)
    if name.startswith(LOCAL_DIR):
        return timm.models.VisionTransformer(**local_architecture(name)["model_args"])
    model = vfm_spec(name).model
    if model.startswith(SAM):
        return build_sam_encoder(model.removeprefix(SAM))
    network: nn.Module = timm.create_model(model, pretrained=False, num_classes=0, **size_arguments(model))
    return network


def proxy_encoder(model: nn.Module, config: ModelConfig, crop: int) -> Proxy:
    """The proxy around a network of `new_proxy`. crop: side of a window in pixels, 0 for whole images."""
    name = str(config.proxy)
    if name.startswith(LOCAL_DIR):
        return TimmProxy(model, local_architecture(name).get("positions", "antialias"))
    spec = vfm_spec(name)
    if spec.model.startswith(SAM):
        return SamProxy(model)
    if not is_plain_vit(model):
        return FeatureMapProxy(model)
    return TimmProxy(model, spec.positions, side_px=crop if spec.square and crop else None)


def check_proxy(config: ModelConfig, crop: int) -> None:
    """ValueError if the network cannot be a proxy, or not at `config.proxy_scale`. Needs no weights."""
    if config.proxy is not None:
        with torch.device("meta"):
            check_scale(proxy_encoder(new_proxy(config), config, crop), config.proxy_scale)


def size_arguments(name: str) -> dict[str, Any]:
    """Arguments that make a timm model take windows of any size, if it can. ValueError if it cannot be a proxy."""
    with torch.device("meta"):
        proxy = as_proxy(timm.create_model(name, pretrained=False, num_classes=0))
    any_size = isinstance(proxy, FeatureMapProxy) and hasattr(proxy.model, "dynamic_img_size")
    return {"dynamic_img_size": True} if any_size else {}


def _normalisation(config: ModelConfig) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    """Mean and std of the pixels that the weights were trained on; None if unknown."""
    if config.clip.startswith(LOCAL_DIR):
        known = local_architecture(config.clip).get("preprocess_cfg", {})
    else:
        tags = open_clip.list_pretrained_tags_by_model(config.clip)
        tag = config.clip_pretrained if config.clip_pretrained in tags else next(iter(tags), None)
        known = open_clip.get_pretrained_cfg(config.clip, tag) if tag else {}
    return known.get("mean"), known.get("std")


def lazy_tokenizer(clip: str, weights: str | None = None) -> Tokenizer:
    """CLIP's tokenizer, loaded at its first use: some are downloads, and jobs with embeddings need none.

    weights: the bundle that may hold its files (`recipes.bundle`).
    """

    @functools.cache
    def load() -> Tokenizer:
        try:
            folder = tokenizer_folder(weights, clip) if weights else None
            tokenizer: Tokenizer = open_clip.get_tokenizer(clip if folder is None else f"{LOCAL_DIR}{folder}")
        except ImportError as error:
            raise ValueError(
                f'The tokenizer of CLIP {clip} needs another package; pip install "proxyclip[siglip]".'
            ) from error
        except OSError as error:
            raise FileNotFoundError(
                f"The tokenizer of CLIP {clip} is not on this machine, and its download failed "
                f"({type(error).__name__}); load it once with a network, or pass text embeddings (--embeddings)."
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
