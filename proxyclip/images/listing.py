"""The images of a run: listed below a prefix, fetched one by one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from proxyclip.images.reading import ImageError
from proxyclip.storage.store import Storage, StorageError, public_uri

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


GONE = "no such file; it was removed after it was listed, or is a dead link"


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image before it is read. uri: its key relative to the input. etag changes when the file does."""

    uri: str
    size_bytes: int
    etag: str


def input_storage(input_uri: str) -> Storage:
    """Where the images of an input lie: the input itself, or for a single image the folder around it."""
    storage = Storage(input_uri)
    folder, _, name = storage.uri.rpartition("/")
    if name.lower().endswith(EXTENSIONS) and not folder.endswith(":/"):
        around = Storage(folder or "/")
        if around.exists(name):
            return around
    return storage


def list_images(input_uri: str, *, exclude: str | None = None) -> list[ImageRef]:
    """All images below a folder or prefix, sorted by uri; of a single image file, that one.

    An image is told by its extension, in any case. Hidden files and folders (leading ".") are left out, and so
    is all below `exclude`, a URI: the output of a run may lie inside its input.
    Raises FileNotFoundError where nothing is at `input_uri` and ValueError where no images are.
    """
    storage = input_storage(input_uri)
    if storage.uri != Storage(input_uri).uri:
        name = Storage(input_uri).uri.rpartition("/")[2]
        found = storage.stat(name)
        return [ImageRef(found.key, found.size_bytes, found.etag)]
    shown = public_uri(storage.uri)
    if storage.local and not storage.local.is_dir():
        what = "is a file, but no image by its extension" if storage.local.exists() else "does not exist"
        error = ValueError if storage.local.exists() else FileNotFoundError
        raise error(f"input {shown} {what}; a folder, a prefix or an image ({', '.join(EXTENSIONS)}) wanted.")
    left_out = _inside(storage, exclude)
    images, others = [], 0
    for key, size_bytes, etag, _ in storage.list():
        if key.lower().endswith(EXTENSIONS) and not _hidden(key) and not (left_out and key.startswith(left_out)):
            _check_name(storage, key)
            images.append(ImageRef(key, size_bytes, etag))
        else:
            others += 1
    if not images and not others and not storage.local:
        raise FileNotFoundError(
            f"input {shown}: no object has this prefix; is the bucket, prefix or endpoint mistyped?"
        )
    if not images:
        raise ValueError(f"input {shown}: no images found among {others} files; {', '.join(EXTENSIONS)} wanted.")
    return images


def fetch_image(storage: Storage, uri: str) -> bytes:
    """The encoded bytes of an image.

    What is wrong with this image alone (gone, not readable for us) raises ImageError("fetch_failed") with a
    reason that is the same each time. What is wrong with the storage (unreachable, credentials expired) raises
    StorageError: it would fail every image, and must not be recorded as a property of one.
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
    """The keys below `exclude` start with this; None where it does not lie inside the input."""
    if exclude is None:
        return None
    other = Storage(exclude)
    here, there = storage.uri, other.uri
    if storage.local and other.local:
        here, there = str(storage.local.resolve()), str(other.local.resolve())
    if here == there:
        raise ValueError(f"output {public_uri(there)} is the input itself; give a folder inside or beside it.")
    root = here.rstrip("/") + "/"
    return there[len(root) :] + "/" if there.startswith(root) else None


def _check_name(storage: Storage, key: str) -> None:
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"input {public_uri(storage.uri)}: the file name {os.fsencode(Path(key))!r} is not UTF-8 and cannot be "
            "written to Parquet; rename the file."
        ) from None
