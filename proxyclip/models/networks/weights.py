"""Where weights lie, what they hash to, and networks with them: from local files or by name."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import open_clip
import timm

from proxyclip.config import ModelConfig
from proxyclip.models.networks.build import (
    LOCAL_DIR,
    SAM,
    architecture,
    check_clip_name,
    clip_encoder,
    new_clip,
    new_proxy,
    proxy_encoder,
    size_arguments,
    vfm_spec,
)
from proxyclip.models.networks.checkpoints import load_state, read_state
from proxyclip.models.networks.clip import ClipEncoder
from proxyclip.models.networks.proxy import TimmProxy
from proxyclip.models.networks.proxy_maps import FeatureMapProxy
from proxyclip.models.networks.proxy_sam import SamProxy
from proxyclip.recipes.licences import clip_licence, forbids_commercial_use

logger = logging.getLogger(__name__)

# Classifiers, poolers and reconstruction heads, which a proxy does without, in the file as in the model.
_HEADS = ("head.", "head_dist.", "attn_pool.", "mask_token", "decoder")

# Beside the networks: norms of poolers that the model lacks, and tables of rotary positions, which it computes.
_PROXY_SPARE = ("fc_norm.", "rope.")

# Beside the networks: a SigLIP constant, and what OpenAI's TorchScript archives say of themselves.
_CLIP_SPARE = ("logit_bias", "input_resolution", "context_length", "vocab_size")


def weight_files(config: ModelConfig) -> dict[str, Path]:
    """The files that hold the weights of a configuration, by part ("clip", "proxy"); downloads named ones.

    Raises FileNotFoundError that names the part, and ValueError for unknown model names.
    """
    files = {"clip": _clip_file(config)}
    if config.proxy is not None:
        files["proxy"] = _proxy_file(config)
    return files


def weight_hashes(config: ModelConfig) -> dict[str, str]:
    """sha256 of every weight file, and of the architecture beside it for `local-dir:` models."""
    hashes = {}
    for part, path in weight_files(config).items():
        digest = hashlib.sha256()
        name = config.clip if part == "clip" else str(config.proxy)
        if name.startswith(LOCAL_DIR):
            digest.update(json.dumps(architecture(name), sort_keys=True).encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
        hashes[part] = digest.hexdigest()
    return hashes


def load_clip(config: ModelConfig) -> ClipEncoder:
    """The CLIP of a configuration, in float32 on the CPU."""
    path = _clip_file(config)
    if not config.clip.startswith(LOCAL_DIR):
        _warn_of_licence(f"CLIP {config.clip}", clip_licence(config.clip, config.clip_pretrained))
    model = new_clip(config)
    load_state(model, read_state(path), path, f"CLIP {config.clip}", spare=_CLIP_SPARE)
    return clip_encoder(model, config)


def load_proxy(config: ModelConfig, crop: int) -> TimmProxy | FeatureMapProxy | SamProxy | None:
    """The proxy of a configuration, in float32 on the CPU, or None where it names none. crop: side of a window."""
    if config.proxy is None:
        return None
    path, what = _proxy_file(config), f"proxy {config.proxy}"
    if not config.proxy.startswith(LOCAL_DIR):
        _warn_of_licence(what, vfm_spec(config.proxy).licence)
    state, model = read_state(path), new_proxy(config)
    encoder = "image_encoder."  # a whole SAM has a prompt encoder and a mask decoder beside it
    if any(name.startswith(encoder) for name in state):
        state = {name.removeprefix(encoder): value for name, value in state.items() if name.startswith(encoder)}
    load_state(model, state, path, what, spare=_PROXY_SPARE, unused=_HEADS)
    return proxy_encoder(model, config, crop)


def _warn_of_licence(what: str, licence: str) -> None:
    if forbids_commercial_use(licence):
        logger.warning("The weights of %s are licensed %s: not for commercial use.", what, licence)


def _clip_file(config: ModelConfig) -> Path:
    check_clip_name(config.clip)
    if config.clip_weights:
        return _existing(config.clip_weights, "CLIP weights")
    if config.clip.startswith(LOCAL_DIR):
        return _single_weights(config.clip, "CLIP")
    pretrained = open_clip.get_pretrained_cfg(config.clip, config.clip_pretrained)
    if not pretrained:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(config.clip)) or "none"
        raise ValueError(f"open_clip has no weights {config.clip_pretrained!r} for {config.clip}; it has: {tags}.")
    return Path(open_clip.download_pretrained(pretrained))


def _proxy_file(config: ModelConfig) -> Path:
    proxy = str(config.proxy)
    if config.proxy_weights:
        return _existing(config.proxy_weights, "proxy weights")
    if proxy.startswith(LOCAL_DIR):
        return _single_weights(proxy, "proxy")
    from huggingface_hub import hf_hub_download

    name = vfm_spec(proxy).model
    if name.startswith(SAM):
        raise ValueError(f"Proxy {proxy} is not downloaded by name; give SAM's checkpoint as --proxy-weights FILE.")
    size_arguments(name)  # refuses what is no proxy before it is downloaded
    pretrained = timm.get_pretrained_cfg(name)
    if pretrained is None or not pretrained.hf_hub_id:
        raise ValueError(f"timm has no weights for {name}; give --proxy-weights FILE.")
    repository = pretrained.hf_hub_id if "/" in pretrained.hf_hub_id else f"timm/{name}"
    return Path(hf_hub_download(repository, "model.safetensors"))


def _existing(path: str, what: str) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"{what}: there is no file {path}.")
    return Path(path)


def _single_weights(spec: str, what: str) -> Path:
    folder = Path(spec.removeprefix(LOCAL_DIR))
    for pattern in ("*.safetensors", "*.bin", "*.pt", "*.pth"):
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{what} folder {folder} holds {len(found)} {pattern} files; wanted one.")
    raise FileNotFoundError(f"{what} folder {folder} holds no weights (*.safetensors, *.bin, *.pt, *.pth).")
