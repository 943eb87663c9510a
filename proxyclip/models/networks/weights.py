"""Networks with their weights, from the files that `recipes.weights` finds."""

from __future__ import annotations

import logging

from proxyclip.config import ModelConfig
from proxyclip.models.networks.build import check_proxy, clip_encoder, new_clip, new_proxy, proxy_encoder
from proxyclip.models.networks.checkpoints import load_state, read_state
from proxyclip.models.networks.clip import ClipEncoder
from proxyclip.models.networks.proxy import Proxy
from proxyclip.recipes.architectures import LOCAL_DIR, is_listed_proxy, vfm_spec
from proxyclip.recipes.licences import clip_licence, forbids_commercial_use
from proxyclip.recipes.weights import weight_files

logger = logging.getLogger(__name__)

# Classifiers, poolers and reconstruction heads: a proxy uses none, whether the file or the model has them or not.
_HEADS = ("head.", "head_dist.", "attn_pool.", "mask_token", "decoder")

# A file may also hold norms of poolers that the model lacks, and rotary position tables that it computes.
_PROXY_SPARE = ("fc_norm.", "rope.")

# A file may also hold a SigLIP constant, and the constants of OpenAI's TorchScript archives.
_CLIP_SPARE = ("logit_bias", "input_resolution", "context_length", "vocab_size")


def load_clip(config: ModelConfig) -> ClipEncoder:
    """The CLIP of a configuration with its weights, in float32 on the CPU."""
    path = weight_files(config, ["clip"])["clip"]
    if not config.clip.startswith(LOCAL_DIR):
        _warn_of_licence(f"CLIP {config.clip}", clip_licence(config.clip, config.clip_pretrained))
    model = new_clip(config)
    load_state(model, read_state(path), path, f"CLIP {config.clip}", spare=_CLIP_SPARE)
    return clip_encoder(model, config)


def load_proxy(config: ModelConfig, crop: int) -> Proxy | None:
    """The proxy of a configuration with its weights, in float32 on the CPU; None if it has no proxy.

    crop: side of a window in pixels, 0 for whole images.
    """
    if config.proxy is None:
        return None
    if not is_listed_proxy(config.proxy):
        check_proxy(config, crop)  # before its weights are downloaded
    path, what = weight_files(config, ["proxy"])["proxy"], f"proxy {config.proxy}"
    if not config.proxy.startswith(LOCAL_DIR):
        _warn_of_licence(what, vfm_spec(config.proxy).licence)
    state, model = read_state(path), new_proxy(config)
    encoder = "image_encoder."  # SAM's file also has a prompt encoder and a mask decoder
    if any(name.startswith(encoder) for name in state):
        state = {name.removeprefix(encoder): value for name, value in state.items() if name.startswith(encoder)}
    load_state(model, state, path, what, spare=_PROXY_SPARE, unused=_HEADS)
    return proxy_encoder(model, config, crop)


def _warn_of_licence(what: str, licence: str) -> None:
    if forbids_commercial_use(licence):
        logger.warning("The weights of %s are licensed %s: not for commercial use.", what, licence)
