"""The images of an input, by uri, wherever their bytes lie."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from proxyclip.images.errors import ImageError
from proxyclip.images.inputs.address import InputAddress, located
from proxyclip.images.inputs.names import is_address, split_parquet, split_tar
from proxyclip.images.inputs.rows import ParquetFiles
from proxyclip.images.inputs.tars import TarFiles
from proxyclip.images.ref import GONE, ImageRef
from proxyclip.storage.retry import carry
from proxyclip.storage.store import Storage, StorageError, public_uri

FETCHES_AT_ONCE = 16


class Readable(Protocol):
    """What has bytes by uri or key: a `Storage`, or the `Images` of an input."""

    def read(self, key: str, /) -> bytes:
        """Read one."""


def open_images(input_uri: str) -> Images:
    """The images of an input. Lists and reads nothing yet."""
    address = InputAddress.parse(input_uri)
    return Images(address, located(address)[0])


class Images:
    """The images of an input. Pickled, it is its address only.

    storage: what uris that are no addresses are relative to.
    """

    def __init__(self, address: InputAddress, storage: Storage) -> None:
        self.address = address
        self.storage = storage
        self._tars = TarFiles(storage)
        self._parquet = ParquetFiles(storage, address.image_column, address.key_column)

    def __reduce__(self) -> tuple[type[Images], tuple[InputAddress, Storage]]:
        return Images, (self.address, self.storage)

    @property
    def uri(self) -> str:
        """Where they are."""
        return self.storage.uri

    @property
    def local(self) -> Path | None:
        """The folder on disk that their uris are relative to, or None."""
        return self.storage.local

    def read(self, uri: str) -> bytes:
        """The encoded bytes of an image. `fetch_image` sorts the errors."""
        if is_address(uri):
            return _read_address(uri)
        if split_tar(uri) is not None:
            return self._tars.read(_inside(uri))
        if split_parquet(uri) is not None:
            return self._parquet.read(_inside(uri))
        return self.storage.read(uri)

    def exists(self, uri: str) -> bool:
        """Whether the file is there that has the image."""
        if is_address(uri):
            storage, key = _split_address(uri)
            return storage.exists(key)
        inside = split_tar(uri) or split_parquet(uri)
        return self.storage.exists(inside[0] if inside else uri)

    def fetch(self, pool: Executor, refs: Sequence[ImageRef]) -> list[bytes | ImageError]:
        """The bytes of some images, or why there are none, in order. Neighbours in a file are read together.

        Raises StorageError if the storage does not work.
        """
        found: dict[str, bytes | ImageError] = {}
        for some in pool.map(carry(_call), self._reads(refs)):
            found.update(some)
        return [found[ref.uri] for ref in refs]

    def _reads(self, refs: Sequence[ImageRef]) -> Iterator[Callable[[], dict[str, bytes | ImageError]]]:
        """The reads that make up a fetch."""
        members = [ref for ref in refs if not is_address(ref.uri) and split_tar(ref.uri)]
        rows = [ref for ref in refs if not is_address(ref.uri) and not split_tar(ref.uri) and split_parquet(ref.uri)]
        inside = {ref.uri for ref in (*members, *rows)}
        files = [ref.uri for ref in refs if ref.uri not in inside]
        for start in range(min(FETCHES_AT_ONCE, len(files))):  # one task an image costs more than a disk does
            yield partial(self._read_files, files[start::FETCHES_AT_ONCE])
        for group in self._tars.plan(members):
            yield partial(self._read_together, group, self._tars.read_group)
        for group in self._parquet.plan(rows):
            yield partial(
                self._read_together, group, lambda group: self._parquet.read_group([ref.uri for ref in group])
            )

    def _read_files(self, uris: Sequence[str]) -> dict[str, bytes | ImageError]:
        return {uri: self._or_error(uri) for uri in uris}

    def _or_error(self, uri: str) -> bytes | ImageError:
        try:
            return fetch_image(self, uri)
        except ImageError as error:
            return error

    def _read_together(
        self, group: Sequence[ImageRef], read: Callable[[Sequence[ImageRef]], list[bytes | ImageError]]
    ) -> dict[str, bytes | ImageError]:
        """The images of a group. A fault of their file is that of each."""
        safe = [ref for ref in group if not _leads_out(ref.uri)]
        found: dict[str, bytes | ImageError] = {ref.uri: _leads_out_error() for ref in group}
        try:
            found |= zip((ref.uri for ref in safe), read(safe) if safe else [], strict=True)
        except StorageError:
            raise
        except OSError as error:
            found |= dict.fromkeys((ref.uri for ref in safe), ImageError("fetch_failed", _reason(error)))
        return found


def fetch_image(images: Readable, uri: str) -> bytes:
    """The encoded bytes of an image.

    Raises ImageError("fetch_failed") if only this image has a problem (missing, no permission); its reason is the
    same each time. Raises StorageError if the storage has a problem (unreachable, credentials expired): every image
    would fail, so none of them may be recorded as failed.
    """
    try:
        return images.read(uri)
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise ImageError("fetch_failed", GONE) from error
    except ValueError as error:
        raise _leads_out_error() from error
    except OSError as error:
        raise ImageError("fetch_failed", _reason(error)) from error


def _leads_out_error() -> ImageError:
    return ImageError("fetch_failed", "a name that leads out of the input")


def _reason(error: OSError) -> str:
    return error.strerror or (os.strerror(error.errno) if error.errno else type(error).__name__)


def _call(read: Callable[[], dict[str, bytes | ImageError]]) -> dict[str, bytes | ImageError]:
    return read()


def _leads_out(uri: str) -> bool:
    return ".." in uri.split("/") or "\0" in uri


def _inside(uri: str) -> str:
    """The uri, if its member's name does not lead out of a folder: results are stored under it."""
    if _leads_out(uri):
        raise ValueError(uri)
    return uri


def _read_address(uri: str) -> bytes:
    storage, key = _split_address(_inside(uri))
    try:
        return storage.read(key)
    except StorageError as error:
        if not uri.startswith(("http://", "https://")):
            raise
        # One site of many is down, or refuses. That is a fault of its images.
        kind = str(error).removeprefix(f"storage: {public_uri(storage.uri)}: ").partition(":")[0]
        raise ImageError("fetch_failed", f"the site does not serve it ({kind})") from error
    except ValueError as error:
        raise ImageError("fetch_failed", f"it cannot be fetched: {error}") from error


def _split_address(uri: str) -> tuple[Storage, str]:
    """The storage and the key of an address: its bucket, or the disk."""
    scheme, _, rest = uri.partition("://")
    if scheme == "file":
        return Storage("/"), rest.lstrip("/")
    if scheme == "hf":  # hf://datasets/OWNER/NAME/PATH
        return Storage("hf://datasets"), rest.removeprefix("datasets/")
    place = urlsplit(uri).netloc
    return Storage(f"{scheme}://{place}"), rest[len(place) + 1 :]
