"""Where weights lie, what they hash to, and loading them: from local files or by name, never from unsafe pickles."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from proxyclip.config import ModelConfig
from proxyclip.models.clip import ClipEncoder, Tokenizer
from proxyclip.models.clip_timm import as_clip
from proxyclip.models.vfm import TimmProxy, is_plain_vit
from proxyclip.models.vfm_generic import FeatureMapProxy, as_proxy
from proxyclip.models.vfm_sam import SamProxy, build_sam_encoder
from proxyclip.vfms import VFMS, VfmSpec, forbids_commercial_use

logger = logging.getLogger(__name__)

LOCAL_DIR = "local-dir:"
_SAM = "segment-anything/"

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
            digest.update(json.dumps(_architecture(name), sort_keys=True).encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
        hashes[part] = digest.hexdigest()
    return hashes


def clip_embed_dim(config: ModelConfig) -> int:
    """Width of the text space of a configuration's CLIP, from its architecture alone."""
    if config.clip.startswith(LOCAL_DIR):
        return int(_architecture(config.clip)["model_cfg"]["embed_dim"])
    return int(open_clip.get_model_config(config.clip)["embed_dim"])


def load_clip(config: ModelConfig) -> ClipEncoder:
    """The CLIP of a configuration, in float32 on the CPU."""
    path = _clip_file(config)
    with _quiet_root_logger():  # open_clip warns of random weights, which are replaced next
        model = open_clip.create_model(config.clip, load_weights=False, pretrained_text=False)
    _load(model, _read_state(path), path, f"CLIP {config.clip}", spare=_CLIP_SPARE)
    mean, std = _normalisation(config)
    return as_clip(model, _tokenizer(config.clip), mean, std)


def _normalisation(config: ModelConfig) -> tuple[Sequence[float] | None, Sequence[float] | None]:
    """Mean and standard deviation of the pixels that the weights were trained on, where they are known."""
    if config.clip.startswith(LOCAL_DIR):
        known = _architecture(config.clip).get("preprocess_cfg", {})
    else:
        tags = open_clip.list_pretrained_tags_by_model(config.clip)
        tag = config.clip_pretrained if config.clip_pretrained in tags else next(iter(tags), None)
        known = open_clip.get_pretrained_cfg(config.clip, tag) if tag else {}
    return known.get("mean"), known.get("std")


def load_proxy(config: ModelConfig, crop: int) -> TimmProxy | FeatureMapProxy | SamProxy | None:
    """The proxy of a configuration, in float32 on the CPU, or None where it names none. crop: side of a window."""
    if config.proxy is None:
        return None
    path = _proxy_file(config)
    what, state = f"proxy {config.proxy}", _read_state(path)
    if config.proxy.startswith(LOCAL_DIR):
        architecture = _architecture(config.proxy)
        model: nn.Module = timm.models.VisionTransformer(**architecture["model_args"])
        _load(model, state, path, what, spare=_PROXY_SPARE, unused=_HEADS)
        return TimmProxy(model, architecture.get("positions", "antialias"))
    spec = _vfm_spec(config.proxy)
    if forbids_commercial_use(spec.licence):
        logger.warning("The weights of %s are licensed %s: not for commercial use.", config.proxy, spec.licence)
    if spec.model.startswith(_SAM):
        encoder = build_sam_encoder(spec.model.removeprefix(_SAM))
        part = {
            name.removeprefix("image_encoder."): t for name, t in state.items() if name.startswith("image_encoder.")
        }
        _load(encoder, part or state, path, what, spare=())
        return SamProxy(encoder)
    model = timm.create_model(spec.model, pretrained=False, num_classes=0, **_size_arguments(spec.model))
    _load(model, state, path, what, spare=_PROXY_SPARE, unused=_HEADS)
    if not is_plain_vit(model):
        return FeatureMapProxy(model)
    return TimmProxy(model, spec.positions, side_px=crop if spec.square and crop else None)


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


def _clip_file(config: ModelConfig) -> Path:
    if not config.clip.startswith(LOCAL_DIR) and config.clip not in open_clip.list_models():
        raise ValueError(
            f"Unknown CLIP {config.clip!r}; give a name of open_clip.list_models() or 'local-dir:FOLDER' "
            "with open_clip_config.json and weights."
        )
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

    name = _vfm_spec(proxy).model
    if name.startswith(_SAM):
        raise ValueError(f"Proxy {proxy} is not downloaded by name; give SAM's checkpoint as --proxy-weights FILE.")
    _size_arguments(name)  # refuses what is no proxy before it is downloaded
    pretrained = timm.get_pretrained_cfg(name)
    if pretrained is None or not pretrained.hf_hub_id:
        raise ValueError(f"timm has no weights for {name}; give --proxy-weights FILE.")
    repository = pretrained.hf_hub_id if "/" in pretrained.hf_hub_id else f"timm/{name}"
    return Path(hf_hub_download(repository, "model.safetensors"))


def _vfm_spec(name: str) -> VfmSpec:
    if name in VFMS:
        return VFMS[name]
    if timm.is_model(name):
        pretrained = timm.get_pretrained_cfg(name)
        return VfmSpec(name, (pretrained and pretrained.license) or "")
    raise ValueError(
        f"Unknown proxy {name!r}; give one of {', '.join(VFMS)}, the name of a timm vision transformer, "
        "or 'local-dir:FOLDER' with config.json and weights."
    )


def _size_arguments(name: str) -> dict[str, Any]:
    """What makes a timm model take windows of any size, if it can; ValueError if it cannot be a proxy at all."""
    with torch.device("meta"):
        proxy = as_proxy(timm.create_model(name, pretrained=False, num_classes=0))
    any_size = isinstance(proxy, FeatureMapProxy) and hasattr(proxy.model, "dynamic_img_size")
    return {"dynamic_img_size": True} if any_size else {}


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


def _architecture(spec: str) -> dict[str, Any]:
    """What a `local-dir:` folder says of its model."""
    folder = Path(spec.removeprefix(LOCAL_DIR))
    for name in ("open_clip_config.json", "config.json"):
        if (folder / name).is_file():
            return json.loads((folder / name).read_text())
    raise FileNotFoundError(f"{folder} holds no open_clip_config.json (CLIP) or config.json (proxy).")


def _read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name. Pickles are read with `weights_only=True`; TorchScript archives (OpenAI's) as such."""
    refusal = (
        f"{path} is no safe checkpoint: wanted safetensors, a plain state dict or a TorchScript archive; "
        "pickles that run code are refused."
    )
    try:
        state = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{refusal} ({type(error).__name__})") from error
    for key in ("state_dict", "model", "teacher"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{refusal} (it holds something else than tensors by name)")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        with contextlib.suppress(RuntimeError):
            return torch.jit.load(path, map_location="cpu").state_dict()
        raise error


@contextlib.contextmanager
def _quiet_root_logger() -> Iterator[None]:
    logger, level = logging.getLogger(), logging.getLogger().level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _load(
    model: nn.Module,
    state: dict[str, Tensor],
    path: Path,
    what: str,
    spare: tuple[str, ...],
    unused: tuple[str, ...] = (),
) -> None:
    """Load a state dict whole, or say which tensors do not fit.

    By the beginning of their names: `spare` tensors may be left over, and `unused` ones may besides be missing.
    """
    wanted = {n: tuple(t.shape) for n, t in model.state_dict().items() if not n.startswith(unused)}
    found = {name: tuple(value.shape) for name, value in state.items()}
    computed = {name for name, _ in model.named_buffers()} - model.state_dict().keys()
    problems = [f"{name}: missing" for name in wanted if name not in found]
    problems += [f"{n}: {found[n]}, wanted {wanted[n]}" for n in wanted if n in found and found[n] != wanted[n]]
    problems += [
        f"{name}: not in the model"
        for name in found
        if name not in wanted and name not in computed and not name.startswith(spare + unused)
    ]
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise ValueError(f"{path} does not hold the weights of {what}: {'; '.join(problems[:5])}{more}.")
    model.load_state_dict({name: state[name] for name in wanted}, strict=False)
