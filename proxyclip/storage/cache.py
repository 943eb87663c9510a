"""Files of a store, kept on this machine: fetched once, named by their content, shared by all processes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from proxyclip.storage.entry import Entry, StorageError, public_uri
from proxyclip.storage.store import Storage

_BLOCK_BYTES = 1 << 24


def cache_folder() -> Path:
    """Where copies lie: proxyclip/weights in the user's cache, which XDG_CACHE_HOME moves."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "proxyclip" / "weights"


def fetch(uri: str, sha256: str | None = None) -> Path:
    """The path of a copy of a stored file on this machine. The copy's name is the sha256 of its content.

    The file is fetched if no copy of its present version is here; processes that start together fetch it once. With
    `sha256`, a copy with this content is returned without asking the storage. A fetched file may have another hash:
    compare it. Raises FileNotFoundError, PermissionError or StorageError if the file cannot be read, and StorageError
    if the cache cannot be written.
    """
    folder = cache_folder()
    suffix = PurePosixPath(uri.partition("?")[0]).suffix
    if sha256 is not None and (known := folder / f"{sha256}{suffix}").is_file():
        return known
    place, _, name = uri.rpartition("/")
    storage = Storage(place)
    while True:
        entry = storage.stat(name)
        with _cache_errors(folder), _locked(folder / f"{_hash(uri)}.lock"):
            version = folder / "versions" / _hash(uri, entry.etag, str(entry.modified_s), str(entry.size_bytes))
            if found := _copy_of(version, folder):
                return found
            partial = folder / f"{_hash(uri)}.{socket.gethostname()}.partial"
            found_sha256 = _download(storage, name, entry, partial)
            if storage.stat(name)[:4] != entry[:4]:
                partial.unlink()  # replaced while it was read: parts of two files
                continue
            copy = folder / f"{found_sha256}{suffix}"
            partial.replace(copy)
            if entry.etag or entry.modified_s:  # else a later version could not be told from this one
                _write(version, copy.name)
            return copy


def discard_broken(path: Path) -> bool:
    """Remove a copy whose content no longer has the hash in its name. Returns whether it was removed."""
    if path.parent != cache_folder() or not re.fullmatch(r"[0-9a-f]{64}", path.stem):
        return False
    digest = hashlib.sha256()
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
        if digest.hexdigest() == path.stem:
            return False
    path.unlink(missing_ok=True)
    return True


def _copy_of(version: Path, folder: Path) -> Path | None:
    """The copy of a version of a file; None if it is not here or was removed."""
    try:
        copy = folder / version.read_text()
    except FileNotFoundError:
        return None
    return copy if copy.is_file() else None


def _download(storage: Storage, name: str, entry: Entry, partial: Path) -> str:
    """Copy a file to `partial`, which a killed download may have left. Returns its sha256."""
    digest = hashlib.sha256()
    size_bytes = 0
    with storage.open(name) as source, partial.open("wb") as file:
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
            file.write(block)
            size_bytes += len(block)
        file.flush()
        os.fsync(file.fileno())
    if size_bytes != entry.size_bytes:
        raise StorageError(
            f"storage: {public_uri(storage.uri)}/{name} has {entry.size_bytes} bytes, but only {size_bytes} could be "
            "read; try again."
        )
    return digest.hexdigest()


def _write(path: Path, text: str) -> None:
    partial = path.with_suffix(f".{socket.gethostname()}.partial")
    partial.write_text(text)
    partial.replace(path)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock against other processes of this machine. The system releases it when its process dies."""
    (path.parent / "versions").mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _cache_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError) or "://" in str(error.filename):
            raise  # of the store, not of the cache
        raise StorageError(
            f"storage: {folder}: cannot keep a copy of the file here: {error.strerror}; make room, or set "
            "XDG_CACHE_HOME to a folder that can be written."
        ) from error


def _hash(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]
