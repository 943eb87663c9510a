"""The images of an input: list all of them, fetch one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from proxyclip.images.errors import ImageError
from proxyclip.images.inputs.address import MANIFEST, TABLES, InputAddress, input_storage, located, named_files
from proxyclip.images.inputs.images import fetch_image, open_images
from proxyclip.images.inputs.inventory import read_inventory
from proxyclip.images.inputs.names import is_plain, stands_for_damage
from proxyclip.images.inputs.rows import image_column, list_rows
from proxyclip.images.inputs.sorting import SCHEMA, Listing, sorted_listing
from proxyclip.images.inputs.tables import read_table
from proxyclip.images.inputs.tars import list_tar
from proxyclip.images.ref import EXTENSIONS, GONE, ImageRef, is_image
from proxyclip.storage.store import Entry, Storage, StorageError, public_uri

__all__ = ["EXTENSIONS", "GONE", "ImageRef", "fetch_image", "input_storage", "list_images", "open_images"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

_BATCH_ROWS = 2**16
_FILES_AT_ONCE = 16


def list_images(input_uri: str, *, exclude: str | None = None, only: Collection[str] | None = None) -> Listing:
    """All images of an input, in order of uri: those below a folder or prefix, or those of the file or files it names.

    A file is an image if it has one of EXTENSIONS, upper or lower case. Left out are hidden files and folders
    (leading ".") and everything below the URI `exclude`, since the output of a run may lie inside its input. A folder
    without images may hold tar files or, without these, Parquet files. only: the uris of the images that count; None:
    all.
    Raises FileNotFoundError if `input_uri` does not exist, and ValueError if it contains no images or cannot be read.
    """
    address = InputAddress.parse(input_uri)
    storage, name = located(address)
    if name is None:
        left_out = _inside(storage, exclude)
        batches = _below(storage, address, lambda key: bool(left_out) and key.startswith(str(left_out)))
    else:
        batches = _of_files(storage, address, named_files(storage, name))
    if only is not None:
        wanted = pa.array(sorted(only), pa.string())
        batches = (batch.filter(pc.is_in(batch.column(0), value_set=wanted)) for batch in batches)
    found = sorted_listing(batches)
    if not found.num_images:
        raise ValueError(f"input {public_uri(address.place)}: it names no images.")
    _refuse_only_damage(input_uri, found)
    if found.num_repeated:
        logger.warning(
            "input %s: %d rows repeat the URI of an earlier one, such as %s; each image is labelled once.",
            *(public_uri(address.place), found.num_repeated, found.repeated),
        )
    return found


def _refuse_only_damage(input_uri: str, found: Listing) -> None:
    """Raise ValueError if not one of the input's tar or Parquet files can be read."""
    if not all(stands_for_damage(image.uri) for image in found):
        return
    try:
        fetch_image(open_images(input_uri), next(iter(found)).uri)
    except ImageError as error:
        raise ValueError(f"input {public_uri(InputAddress.parse(input_uri).place)}: {error.reason}.") from error


def _below(storage: Storage, address: InputAddress, is_left_out: Callable[[str], bool]) -> Iterator[pa.RecordBatch]:
    """The images of a folder or prefix; without any, those in its tar files; without these, in its Parquet files."""
    shown = public_uri(storage.uri)
    if storage.local and not storage.local.is_dir():
        what = "is a file without an image's extension" if storage.local.exists() else "does not exist"
        error = ValueError if storage.local.exists() else FileNotFoundError
        raise error(f"input {shown} {what}; give a folder, a prefix or an image ({', '.join(EXTENSIONS)}).")
    containers: dict[str, list[Entry]] = {".tar": [], ".parquet": []}
    others = num_images = 0

    def images() -> Iterator[ImageRef]:
        nonlocal others, num_images
        for entry in storage.walk():
            key = entry.key
            if is_image(key) and not is_left_out(key):
                _check_name(storage, key)
                num_images += 1
                yield ImageRef(key, entry.size_bytes, entry.etag)
                continue
            others += 1
            ending = key[key.rfind(".") :].lower()
            if ending in containers and not is_left_out(key) and not key.startswith(".") and "/." not in key:
                containers[ending].append(entry)

    yield from _batches(images())
    tars, tables = containers[".tar"], containers[".parquet"]
    if num_images:
        if tars:
            logger.warning(
                "input %s: %d tar files lie among the images and are not read; give them as --input %s/*.tar.",
                *(shown, len(tars), shown),
            )
        return
    if not others and not storage.local:
        raise FileNotFoundError(
            f"input {shown}: no object has this prefix; check bucket, prefix and endpoint for typing errors."
        )
    if not tars and not tables:
        raise ValueError(
            f"input {shown}: no images found among {others} files; an image's name ends in {', '.join(EXTENSIONS)}."
        )
    yield from _of_entries(storage, address, tars or tables)


def _of_files(storage: Storage, address: InputAddress, keys: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The images of files that the input names."""
    if keys == [MANIFEST]:
        yield from read_inventory(storage, MANIFEST)
        return
    tables = [key for key in keys if key.lower().endswith(TABLES)]
    for key in tables:
        yield from read_table(storage, key, address.uri_column)
    others = [key for key in keys if not key.lower().endswith(TABLES)]
    yield from _of_entries(storage, address, (entry for some in _in_order(storage.stat, others) for entry in [some]))


def _of_entries(storage: Storage, address: InputAddress, entries: Iterable[Entry]) -> Iterator[pa.RecordBatch]:
    """The images that files are, hold or name."""

    def of(entry: Entry) -> list[pa.RecordBatch] | None:
        """None: a table, which is read piece by piece."""
        name = entry.key.lower()
        if name.endswith(".tar"):
            return list(_batches(iter(list_tar(storage, entry))))
        if not name.endswith(".parquet"):
            return list(_batches(iter([ImageRef(entry.key, entry.size_bytes, entry.etag)])))
        if address.image_column is None and not _has_bytes(storage, address, entry):
            return None
        return list(list_rows(storage, entry, address.image_column, address.key_column))

    is_table = False
    broken: list[tuple[Entry, list[pa.RecordBatch]]] = []
    for entry, found in _in_order(lambda entry: (entry, of(entry)), entries):
        if found is None:
            is_table = True
            yield from read_table(storage, entry.key, address.uri_column)
        elif len(found) == 1 and found[0].num_rows == 1 and stands_for_damage(found[0].column(0)[0].as_py()):
            broken.append((entry, found))
        else:
            yield from found
    for entry, found in broken:
        # Images are missing from a corpus whose tables cannot be read, so that run must not start.
        yield from read_table(storage, entry.key, address.uri_column) if is_table else found


def _has_bytes(storage: Storage, address: InputAddress, entry: Entry) -> bool:
    """Whether a Parquet file holds the images themselves, and not only their URIs. A broken one may."""
    if address.uri_column is not None:
        return False
    try:
        with storage.open(entry.key) as file:
            schema = pq.read_schema(file)
    except (StorageError, FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError):
        return True
    return image_column(schema, None, f"{public_uri(storage.uri)}/{entry.key}") is not None


def _in_order(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """The results of some work, in order, done by several threads a few items ahead."""
    items = iter(items)
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        while some := list(islice(items, 4 * _FILES_AT_ONCE)):
            yield from pool.map(work, some)


def _batches(images: Iterator[ImageRef]) -> Iterator[pa.RecordBatch]:
    while some := list(islice(images, _BATCH_ROWS)):
        columns = ([ref.uri for ref in some], [ref.size_bytes for ref in some], [ref.etag for ref in some])
        yield pa.RecordBatch.from_arrays(
            [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
        )


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
    if not is_plain(key):
        raise ValueError(
            f"input {public_uri(storage.uri)}: the file name {key!r} looks like a member of a tar file, a row of a "
            "Parquet file or an address; rename the file."
        )
