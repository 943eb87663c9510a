"""The tokenizer of a CLIP in a bundle. Most CLIPs need none: theirs comes with open_clip."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from proxyclip.config import ModelConfig
from proxyclip.recipes.architectures import clip_architecture
from proxyclip.recipes.bundle.manifest import BundleFile, files_of, read_manifest
from proxyclip.storage import cache
from proxyclip.storage.store import Storage

# What transformers may read of a repository to make a tokenizer; no weights.
_PATTERNS = (
    "tokenizer*",
    "*.model",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "config.json",
)


def tokenizer_repository(clip: str) -> str | None:
    """The repository of the hub with the tokenizer of a CLIP; None if it comes with open_clip."""
    repository = clip_architecture(clip).get("text_cfg", {}).get("hf_tokenizer_name")
    return str(repository) if repository else None


@contextlib.contextmanager
def downloaded_tokenizer(clip: str) -> Iterator[Path | None]:
    """A temporary folder with the tokenizer of a CLIP, as open_clip reads it; None if it comes with open_clip."""
    if (repository := tokenizer_repository(clip)) is None:
        yield None
        return
    from huggingface_hub import snapshot_download

    try:
        source = Path(snapshot_download(repository, allow_patterns=list(_PATTERNS)))
    except Exception as error:  # HTTP libraries differ between versions of huggingface_hub
        text = " ".join(str(error).split())[:300]
        raise FileNotFoundError(
            f"The tokenizer of CLIP {clip} could not be downloaded from {repository}: {text}"
        ) from error
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        (Path(folder) / "open_clip_config.json").write_text(json.dumps({"model_cfg": clip_architecture(clip)}))
        yield Path(folder)


def tokenizer_folder(uri: str, clip: str) -> Path | None:
    """The folder on this machine with the tokenizer of a CLIP; None if the bundle holds none for it."""
    files = files_of(read_manifest(uri), ModelConfig(clip=clip), "tokenizer")
    if not files:
        return None
    storage = Storage(uri)
    if storage.local is not None:
        return (storage.local / files[0].file).parent
    return _assembled(storage, files)


def _assembled(storage: Storage, files: list[BundleFile]) -> Path:
    """A folder with copies of stored files under their own names. Whole or absent, as each copy is."""
    content = hashlib.sha256("".join(f"{file.file} {file.sha256}\n" for file in files).encode()).hexdigest()
    folder = cache.cache_folder() / "tokenizers" / content
    if folder.is_dir():
        return folder
    partial = folder.with_name(f"{uuid.uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        for file in files:
            copy = cache.fetch(f"{storage.uri}/{file.file}", file.sha256)
            if copy.stem != file.sha256:
                raise ValueError(f"{storage!r}: {file.file} is not what the manifest says; fetch the bundle again.")
            shutil.copyfile(copy, partial / PurePosixPath(file.file).name)
        with contextlib.suppress(OSError):  # another process was first
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder
