"""Weights: the files that a configuration names, and their hashes.

This file imports open_clip or timm, and so torch, only for names that no table of ours lists.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proxyclip.config import ModelConfig
from proxyclip.recipes.architectures import LOCAL_DIR, SAM, check_clip_name, local_architecture, vfm_spec
from proxyclip.recipes.bundle.manifest import weights_in
from proxyclip.recipes.hub import HubFile
from proxyclip.recipes.proxies import VFMS
from proxyclip.storage import cache
from proxyclip.storage.store import Storage, public_uri

# The repositories of the presets' CLIPs, by architecture and tag, as open_clip names them.
CLIP_REPOSITORIES = {
    ("ViT-B-16-quickgelu", "openai"): "timm/vit_base_patch16_clip_224.openai",
    ("ViT-L-14-quickgelu", "openai"): "timm/vit_large_patch14_clip_224.openai",
    ("ViT-H-14", "laion2b_s32b_b79k"): "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
}

PARTS = ("clip", "proxy")

# What open_clip calls the file of its weights: safetensors, or else a pickle.
_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

_HASH_BLOCK_BYTES = 1 << 22


class WeightsDiffer(ValueError):  # noqa: N818
    """This machine would load other weights than those that the run started with."""


@dataclass(frozen=True)
class StoredFile:
    """A file by URI, copied to this machine when it is needed, or a file of a bundle, by path.

    sha256: as the manifest of the bundle says; None: not known.
    """

    uri: str
    sha256: str | None = None


def weight_files(
    config: ModelConfig, parts: Sequence[str] = PARTS, contents: Mapping[str, str] | None = None
) -> dict[str, Path]:
    """The local files of a configuration's weights, by part; the proxy only if the configuration has one.

    Weights named by an architecture are taken from the cache of the Hugging Face hub, or downloaded to it; those of a
    URI from the cache of this machine (`storage.cache`). Every name is checked before anything is downloaded.
    contents: the sha256 of files, by part; a copy of a stored file with this content then needs no network.
    Raises ValueError for an unknown name, and FileNotFoundError for a file that cannot be had.
    """
    files: dict[str, Path] = {}
    missing: dict[str, HubFile] = {}
    stored: dict[str, StoredFile] = {}
    for part, source in weight_sources(config, parts).items():
        if isinstance(source, Path):
            files[part] = source
        elif isinstance(source, StoredFile):
            stored[part] = source
        elif cached := source.cached():
            files[part] = cached
        else:
            missing[part] = source
    for part, file in stored.items():
        files[part] = _fetched(file, part, (contents or {}).get(part))
    for part, missed in missing.items():
        try:
            files[part] = missed.download()
        except FileNotFoundError as error:
            raise FileNotFoundError(_not_downloaded(config, missing, part, str(error))) from error
    return files


def weight_hashes(config: ModelConfig) -> dict[str, str]:
    """The sha256 of every weight file by part; of a `local-dir:` model, together with its architecture.

    What lies in a store with a manifest is not fetched: its hash is that of the manifest, and whoever loads the file
    checks it.
    """
    hashes: dict[str, str] = {}
    sources = weight_sources(config, PARTS)
    for part, source in sources.items():
        if isinstance(source, StoredFile) and source.sha256 and "://" in source.uri:
            _require(source, part)
            hashes[part] = source.sha256
    for part, path in weight_files(config, [part for part in sources if part not in hashes]).items():
        source = sources[part]
        _, hashes[part] = _checked(path, config, part)
        if isinstance(source, StoredFile) and source.sha256 not in (None, hashes[part]):
            raise WeightsDiffer(
                f"{path} has sha256 {hashes[part]}, but the manifest beside it says {source.sha256}; run `proxyclip "
                "fetch-weights` again."
            )
    return {part: hashes[part] for part in sources}


def check_hashes(config: ModelConfig, expected: Mapping[str, str]) -> ModelConfig:
    """Raise WeightsDiffer unless this machine's weight files have the hashes of the run.

    expected: what `weight_hashes` returned where the run started, or one part of it; only its parts are checked. A
    file that this machine lacks is a FileNotFoundError. Returns the configuration with the files that were checked, so
    that these and no others are loaded.
    """
    machine = socket.gethostname()
    contents = {part: each for part, each in expected.items() if not _name(config, part).startswith(LOCAL_DIR)}
    try:
        files = weight_files(config, tuple(expected), contents)
        checked = {part: _checked(path, config, part) for part, path in files.items()}
    except FileNotFoundError as error:
        raise FileNotFoundError(f"On machine {machine}: {error}") from error
    for part, (path, found) in checked.items():
        if found != expected[part]:
            raise WeightsDiffer(
                f"The weights of {_title(config, part)} on machine {machine} are not those of the run: {path} has "
                f"sha256 {found}, but the run started with {expected[part]}. Copy the file that the run started with "
                "to this machine, or start a new run with a new output."
            )
    pinned: dict[str, Any] = {f"{part}_weights": str(path) for part, (path, _) in checked.items()}
    return replace(config, **pinned)


def weight_sources(config: ModelConfig, parts: Sequence[str] = PARTS) -> dict[str, Path | HubFile | StoredFile]:
    """Where the weights of a configuration come from, by part. Asks no network but for a manifest."""
    sources: dict[str, Path | HubFile | StoredFile] = {}
    if "clip" in parts:
        sources["clip"] = _clip_source(config)
    if "proxy" in parts and config.proxy is not None:
        sources["proxy"] = _proxy_source(config, config.proxy)
    return sources


def _fetched(file: StoredFile, part: str, sha256: str | None) -> Path:
    if "://" not in file.uri:
        _require(file, part)
        return Path(file.uri)
    try:
        return cache.fetch(file.uri, sha256 or file.sha256)
    except FileNotFoundError as error:
        raise _no_file(file.uri, part) from error


def _require(file: StoredFile, part: str) -> None:
    folder, _, name = file.uri.rpartition("/")
    if not Storage(folder).exists(name):
        raise _no_file(file.uri, part)


def _checked(path: Path, config: ModelConfig, part: str) -> tuple[Path, str]:
    """A file with its hash. A broken copy of a stored one is fetched again."""
    found = _file_hash(path, _name(config, part))
    if found != path.stem and cache.discard_broken(path):
        path = weight_files(config, [part])[part]
        found = _file_hash(path, _name(config, part))
    return path, found


def _clip_source(config: ModelConfig) -> Path | HubFile | StoredFile:
    check_clip_name(config.clip)
    if config.clip_weights:
        return _existing(config.clip_weights, "clip")
    if config.clip.startswith(LOCAL_DIR):
        return _single_weights(config.clip, "CLIP")
    if config.weights:
        return _bundled(config.weights, config, "clip")
    if (repository := CLIP_REPOSITORIES.get((config.clip, config.clip_pretrained))) is not None:
        return HubFile(repository, _CLIP_FILES)
    import open_clip

    pretrained = open_clip.get_pretrained_cfg(config.clip, config.clip_pretrained)
    if not pretrained:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(config.clip)) or "none"
        raise ValueError(f"open_clip has no weights {config.clip_pretrained!r} for {config.clip}; it has: {tags}.")
    if not pretrained.get("hf_hub"):
        raise ValueError(
            f"The weights {config.clip_pretrained!r} of {config.clip} are not on the Hugging Face hub; download "
            f"{pretrained.get('url')} and give it as --clip-weights FILE."
        )
    repository, _, name = pretrained["hf_hub"].rpartition("/")
    own_names = (f"{Path(name).stem}.safetensors", name)
    return HubFile(repository, _CLIP_FILES if name in ("", _CLIP_FILES[1]) else own_names)


def _proxy_source(config: ModelConfig, proxy: str) -> Path | HubFile | StoredFile:
    spec = None if proxy.startswith(LOCAL_DIR) else vfm_spec(proxy)
    if config.proxy_weights:
        return _existing(config.proxy_weights, "proxy")
    if spec is None:
        return _single_weights(proxy, "proxy")
    if config.weights:
        return _bundled(config.weights, config, "proxy")
    if spec.model.startswith(SAM):
        raise ValueError(f"Proxy {proxy} is not downloaded by name; give SAM's checkpoint as --proxy-weights FILE.")
    repository = f"timm/{spec.model}"
    if proxy not in VFMS:
        import timm

        pretrained = timm.get_pretrained_cfg(proxy)
        if pretrained is None or not pretrained.hf_hub_id:
            raise ValueError(f"timm has no weights for {proxy}; give --proxy-weights FILE.")
        if "/" in pretrained.hf_hub_id:
            repository = pretrained.hf_hub_id
    return HubFile(repository, ("model.safetensors",))


def _not_downloaded(config: ModelConfig, missing: Mapping[str, HubFile], part: str, reason: str) -> str:
    source = missing[part]
    described_by = "open_clip_config.json" if part == "clip" else "config.json"
    message = (
        f"The weights of {_title(config, part)} are not on this machine and could not be downloaded from "
        f"{source.repository} (file {source.names[0]}): {reason.rstrip('.')}. Give a file with --{part}-weights FILE, "
        f"a folder that `proxyclip fetch-weights` filled with --weights FOLDER, or a folder with {described_by} and "
        f"weights with --{part} {LOCAL_DIR}FOLDER."
    )
    if part == "clip" and "proxy" in missing:
        message += f" The weights of {_title(config, 'proxy')} are missing too; give --proxy-weights FILE."
    return message


def _name(config: ModelConfig, part: str) -> str:
    return config.clip if part == "clip" else str(config.proxy)


def _title(config: ModelConfig, part: str) -> str:
    tag = f" ({config.clip_pretrained})" if config.clip_pretrained and not config.clip.startswith(LOCAL_DIR) else ""
    return f"CLIP {config.clip}{tag}" if part == "clip" else f"proxy {config.proxy}"


def _existing(path: str, part: str) -> Path | StoredFile:
    path = path.removeprefix("file://")
    if "://" in path:
        return StoredFile(path)
    if not Path(path).is_file():
        raise _no_file(path, part)
    return Path(path)


def _no_file(uri: str, part: str) -> FileNotFoundError:
    what = "CLIP" if part == "clip" else part
    return FileNotFoundError(f"The file of the {what} weights does not exist: {public_uri(uri)}.")


def _bundled(uri: str, config: ModelConfig, part: str) -> StoredFile:
    file = weights_in(uri, config, part)
    return StoredFile(f"{Storage(uri).uri}/{file.file}", file.sha256)


def _single_weights(spec: str, what: str) -> Path:
    folder = Path(spec.removeprefix(LOCAL_DIR))
    for pattern in ("*.safetensors", "*.bin", "*.pt", "*.pth"):
        found = sorted(folder.glob(pattern))
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"The {what} folder {folder} contains {len(found)} {pattern} files; keep only one.")
    raise FileNotFoundError(f"The {what} folder {folder} contains no weights (*.safetensors, *.bin, *.pt, *.pth).")


def _file_hash(path: Path, name: str) -> str:
    if name.startswith(LOCAL_DIR):
        return file_hash(path, json.dumps(local_architecture(name), sort_keys=True).encode())
    return file_hash(path)


def file_hash(path: Path, before: bytes = b"") -> str:
    """The sha256 of some bytes and of a file after them."""
    digest = hashlib.sha256(before)
    block = bytearray(_HASH_BLOCK_BYTES)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(memoryview(block)[:size])
    return digest.hexdigest()


def student_file(weights: str | None) -> dict[str, Path]:
    """The file of a student, or of the folder or prefix that `train-student` wrote."""
    if weights is None:
        raise FileNotFoundError("--preset student needs --student: the --output of `proxyclip train-student`.")
    name, path = "student.safetensors", Path(weights)
    try:
        if "://" in weights:
            return {"student": cache.fetch(weights if weights.endswith(name) else f"{weights.rstrip('/')}/{name}")}
        path = path / name if path.is_dir() else path
        path.stat()
    except FileNotFoundError as error:
        place = f"--student {public_uri(weights)}"
        raise FileNotFoundError(f"{place}: there is no {name}. Train one with `proxyclip train-student`.") from error
    return {"student": path}
