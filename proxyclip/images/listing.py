"""The images of an input: list all of them, fetch one."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from proxyclip.images.errors import ImageError
from proxyclip.storage.store import Storage, StorageError, public_uri

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

GONE = "no such file; it was removed after it was listed, or is a dead link"


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image that is not read yet. uri: its key relative to the input. etag: changes when the file changes."""

    uri: str
    size_bytes: int
    etag: str


def input_storage(input_uri: str) -> Storage:
    """The storage of an input: the input itself, or the folder of a single image."""
    storage = Storage(input_uri)
    folder, _, name = storage.uri.rpartition("/")
    if name.lower().endswith(EXTENSIONS) and not folder.endswith(":/"):
        around = Storage(folder or "/")
        if around.exists(name):
            return around
    return storage


def list_images(input_uri: str, *, exclude: str | None = None, only: Collection[str] | None = None) -> list[ImageRef]:
    """All images below a folder or prefix, sorted by uri. The input may also be a single image file.

    A file is an image if it has one of EXTENSIONS, upper or lower case. Left out are hidden files and folders
    (leading ".") and everything below the URI `exclude`, since the output of a run may lie inside its input. only: the
    uris of the images that count; None: all.
    Raises FileNotFoundError if `input_uri` does not exist, and ValueError if it contains no images.
    """
    storage = input_storage(input_uri)
    if storage.uri != Storage(input_uri).uri:
        name = Storage(input_uri).uri.rpartition("/")[2]
        found = storage.stat(name)
        return [ImageRef(found.key, found.size_bytes, found.etag)]
    shown = public_uri(storage.uri)
    if storage.local and not storage.local.is_dir():
        what = "is a file without an image's extension" if storage.local.exists() else "does not exist"
        error = ValueError if storage.local.exists() else FileNotFoundError
        raise error(f"input {shown} {what}; give a folder, a prefix or an image ({', '.join(EXTENSIONS)}).")
    left_out = _inside(storage, exclude)
    images, others = [], 0
    for key, size_bytes, etag, _ in storage.list():
        if key.lower().endswith(EXTENSIONS) and not _hidden(key) and not (left_out and key.startswith(left_out)):
            if only is None or key in only:
                _check_name(storage, key)
                images.append(ImageRef(key, size_bytes, etag))
        else:
            others += 1
    if not images and not others and not storage.local:
        raise FileNotFoundError(
            f"input {shown}: no object has this prefix; check bucket, prefix and endpoint for typing errors."
        )
    if not images:
        raise ValueError(
            f"input {shown}: no images found among {others} files; an image's name ends in {', '.join(EXTENSIONS)}."
        )
    return images


def fetch_image(storage: Storage, uri: str) -> bytes:
    """The encoded bytes of an image.

    Raises ImageError("fetch_failed") if only this image has a problem (missing, no permission); its reason is the
    same each time. Raises StorageError if the storage has a problem (unreachable, credentials expired): every image
    would fail, so none of them may be recorded as failed.
    """
    try:
        return storage.read(uri)
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise ImageError("fetch_failed", GONE) from error
    except ValueError as error:
        raise ImageError("fetch_failed", "a name that leads out of the input") from error
    except OSError as error:
        reason = error.strerror or (os.strerror(error.errno) if error.errno else type(error).__name__)
        raise ImageError("fetch_failed", reason) from error


def _hidden(key: str) -> bool:
    return key.startswith(".") or "/." in key


def _inside(storage: Storage, exclude: str | None) -> str | None:
    """The prefix of all keys below `exclude`, or None if it does not lie inside the input."""
    if exclude is None:
        return None
    other = Storage(exclude)
    here, there = storage.uri, other.uri
    if storage.local and other.local:
        here, there = str(storage.local.resolve()), str(other.local.resolve())
    if here == there:
        raise ValueError(f"output {public_uri(there)} is the input itself; choose a folder inside or beside it.")
    root = here.rstrip("/") + "/"
    return there[len(root) :] + "/" if there.startswith(root) else None


def _check_name(storage: Storage, key: str) -> None:
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"input {public_uri(storage.uri)}: the file name {os.fsencode(Path(key))!r} is not UTF-8, so Parquet "
            "cannot store it; rename the file."
        ) from None
