"""Fill a bundle: copy all that a configuration needs into a folder or prefix."""

from __future__ import annotations

from pathlib import Path

from proxyclip.config import ModelConfig
from proxyclip.recipes.architectures import LOCAL_DIR, vfm_spec
from proxyclip.recipes.bundle.manifest import MANIFEST, BundleFile, bundle_names, read_manifest, write_manifest
from proxyclip.recipes.bundle.tokenizer import downloaded_tokenizer, tokenizer_repository
from proxyclip.recipes.hub import HubFile
from proxyclip.recipes.licences import clip_licence
from proxyclip.recipes.weights import StoredFile, file_hash, weight_files, weight_sources
from proxyclip.storage.store import Storage, public_uri


def fetch_bundle(config: ModelConfig, uri: str) -> list[BundleFile]:
    """Put the weights of a configuration, and its tokenizer if it is a download, below `uri`. Returns these files.

    The manifest is written last. Files that are there already stay, and so do those of other configurations. Raises
    ValueError for a configuration of local folders only, and what `weight_files` raises.
    """
    sources = weight_sources(config)
    parts = [part for part in sources if not _is_local(config, part)]
    if not parts:
        raise ValueError("These networks are local folders (local-dir:), so there is nothing to fetch.")
    storage = Storage(uri)
    storage.check_writable()
    there = {file.file: file for file in (read_manifest(uri) if storage.exists(MANIFEST) else ())}
    files = []
    for part, path in weight_files(config, parts).items():
        model, pretrained = bundle_names(config, part)
        name = ".".join(filter(None, (model.replace("/", "-"), pretrained)))
        licence = clip_licence(model, pretrained) if part == "clip" else vfm_spec(model).licence
        files.append(
            BundleFile(
                part,
                model,
                pretrained,
                file=f"{part}/{name}{path.suffix}",
                sha256=file_hash(path),
                size_bytes=path.stat().st_size,
                licence=licence,
                source=_described(sources[part]),
            )
        )
        _put(storage, files[-1], path, there)
    if "clip" in parts:
        files += _put_tokenizer(storage, config, there)
    latest = {file.file: file for file in (read_manifest(uri) if storage.exists(MANIFEST) else ())}
    write_manifest(storage, (latest | {file.file: file for file in files}).values())
    return files


def _put_tokenizer(storage: Storage, config: ModelConfig, there: dict[str, BundleFile]) -> list[BundleFile]:
    files = []
    with downloaded_tokenizer(config.clip) as folder:
        for path in sorted(folder.iterdir()) if folder else ():
            files.append(
                BundleFile(
                    "tokenizer",
                    config.clip,
                    "",
                    file=f"tokenizer/{config.clip.replace('/', '-')}/{path.name}",
                    sha256=file_hash(path),
                    size_bytes=path.stat().st_size,
                    licence="",
                    source=str(tokenizer_repository(config.clip)),
                )
            )
            _put(storage, files[-1], path, there)
    return files


def _put(storage: Storage, file: BundleFile, path: Path, there: dict[str, BundleFile]) -> None:
    """Write a file unless the manifest says that it is there, with this content."""
    known = there.get(file.file)
    same = known is not None and known.sha256 == file.sha256
    if not (same and storage.exists(file.file) and storage.stat(file.file).size_bytes == file.size_bytes):
        storage.write_file(file.file, path)


def _described(source: Path | HubFile | StoredFile) -> str:
    if isinstance(source, HubFile):
        return source.repository
    return source.name if isinstance(source, Path) else public_uri(source.uri)


def _is_local(config: ModelConfig, part: str) -> bool:
    return bundle_names(config, part)[0].startswith(LOCAL_DIR)
