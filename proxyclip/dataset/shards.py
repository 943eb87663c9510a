"""The Parquet files of a shard: written, committed, and read again by way of the commit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from proxyclip.dataset.commits import Commit, DataFile, committed, create_commit, read_commits
from proxyclip.dataset.plan import Plan
from proxyclip.dataset.rows import FAILURES, KINDS, MASKS, parquet_bytes
from proxyclip.dataset.statistics import shard_stats
from proxyclip.dataset.validate import check_table, leads_out
from proxyclip.storage.store import Storage

Stage = Literal["fetch", "decode", "segment"]


@dataclass(frozen=True)
class LabelledImage:
    """One image and its labels.

    uri: its key relative to the input. height, width: pixels of image and mask. mask, confidence: PNG.
    classes, pixels, class_confidence: for each class that occurs its index, its pixels and their mean
    confidence (0 to 1), in order of index. mean_confidence: over all labelled pixels, 0 where there are none.
    ignored: pixels without a class. pixels and ignored together are height x width.
    """

    uri: str
    height: int
    width: int
    mask: bytes
    confidence: bytes
    classes: Sequence[int]
    pixels: Sequence[int]
    class_confidence: Sequence[float]
    mean_confidence: float
    ignored: int


@dataclass(frozen=True)
class Failure:
    """One image that could not be labelled: where on its way, with what status, and why."""

    uri: str
    stage: Stage
    status: str
    reason: str


def write_shard(
    storage: Storage,
    shard: int,
    images: Sequence[LabelledImage],
    failures: Sequence[Failure],
    class_names: Sequence[str],
) -> Commit:
    """Write the files of a shard, verify that they arrived, and commit it.

    Returns the commit that counts: where another writer was first, its commit, and the files written here are
    left unread. The same rows, in whatever order, give the same bytes, names and commit.
    Raises ValueError for rows that contradict each other and OSError where the storage fails.
    """
    images = sorted(images, key=lambda image: image.uri)
    failures = sorted(failures, key=lambda failure: failure.uri)
    _check(shard, images, failures, len(class_names))
    masks = _masks_table(images)
    tables = {
        "masks": masks,
        "stats": shard_stats(shard, masks, class_names),
        "failures": pa.Table.from_pylist([vars(failure) for failure in failures], FAILURES),
    }
    files = {kind: _write(storage, kind, shard, table) for kind, table in tables.items() if table.num_rows}
    commit = Commit(shard, files, len(images) + len(failures), len(images), len(failures))
    return create_commit(storage, commit)


def read_shard(storage: Storage, commit: Commit) -> tuple[list[LabelledImage], list[Failure]]:
    """The rows of a committed shard. Raises ValueError where a file is not what the commit says it is."""
    labelled = read_table(storage, commit, "masks").to_pylist()
    failures = read_table(storage, commit, "failures").to_pylist()
    for row in labelled:
        row["mask"], row["confidence"] = row["mask"]["bytes"], row["confidence"]["bytes"]
    return [LabelledImage(**row) for row in labelled], [Failure(**row) for row in failures]


def read_masks(storage: Storage) -> Iterator[LabelledImage]:
    """Every labelled image of a run, shard by shard. What is not committed, or dead by now, is not there."""
    dead = Plan(storage).dead()
    for commit in read_commits(storage, committed(storage)):
        gone = dead.get(commit.shard, ())
        yield from (image for image in read_shard(storage, commit)[0] if image.uri not in gone)


def read_table(storage: Storage, commit: Commit, kind: str) -> pa.Table:
    """A file of a shard ("masks", "stats" or "failures"), checked against its commit; no rows where it has none."""
    file = commit.files.get(kind)
    if file is None:
        return KINDS[kind].empty_table()
    data = storage.read(file.key)
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        raise ValueError(
            f"{file.key}: {len(data)} bytes with sha256 {found[:12]} found, {file.size_bytes} bytes with "
            f"{file.sha256[:12]} wanted by the commit of shard {commit.shard}; the file was changed after it was "
            "committed: `proxyclip verify --repair` finds and drops such shards, and the next run labels them anew."
        )
    return check_table(pq.read_table(pa.BufferReader(data)), KINDS[kind], file.key)


def read_columns(storage: Storage, commit: Commit, kind: str, columns: list[str]) -> pa.Table:
    """Some columns of a file of a shard, without reading, and so without checking, the rest of it."""
    file = commit.files.get(kind)
    if file is None:
        return KINDS[kind].empty_table().select(columns)
    with storage.open(file.key) as opened:
        return pq.read_table(opened, columns=columns)


def _masks_table(images: Sequence[LabelledImage]) -> pa.Table:
    rows = [
        {
            **vars(image),
            "mask": {"bytes": image.mask, "path": f"{image.uri}.mask.png"},
            "confidence": {"bytes": image.confidence, "path": f"{image.uri}.confidence.png"},
            "classes": list(image.classes),
            "pixels": list(image.pixels),
            "class_confidence": list(image.class_confidence),
        }
        for image in images
    ]
    return pa.Table.from_pylist(rows, MASKS)


def _write(storage: Storage, kind: str, shard: int, table: pa.Table) -> DataFile:
    data = parquet_bytes(table)
    sha256 = hashlib.sha256(data).hexdigest()
    key = f"{kind}/{shard:06d}-{sha256[:12]}.parquet"
    storage.write(key, data)
    found = storage.stat(key).size_bytes
    if found != len(data):
        raise OSError(f"{key}: {found} bytes found after writing {len(data)}; the storage lost some, try again.")
    return DataFile(key, table.num_rows, len(data), sha256)


def _check(shard: int, images: Sequence[LabelledImage], failures: Sequence[Failure], num_classes: int) -> None:
    if shard < 0:
        raise ValueError(f"shard {shard} found, a number of 0 or more wanted.")
    uris = [image.uri for image in images] + [failure.uri for failure in failures]
    if len(set(uris)) < len(uris):
        twice = next(uri for uri in sorted(uris) if uris.count(uri) > 1)
        raise ValueError(f"shard {shard}: {twice!r} found twice; an image is either labelled or failed, and once.")
    for image in images:
        if leads_out(image.uri):
            raise ValueError(f"shard {shard}: {image.uri!r} is a name that leads out of the input; it has no mask.")
        classes, pixels = list(image.classes), list(image.pixels)
        area = sum(pixels) + image.ignored
        if (
            not len(classes) == len(pixels) == len(image.class_confidence)
            or classes != sorted(set(classes))
            or any(not 0 <= index < num_classes for index in classes)
            or any(count < 1 for count in pixels)
            or area != image.height * image.width
        ):
            raise ValueError(
                f"shard {shard}: {image.uri!r} has classes {classes}, pixels {pixels} and {image.ignored} ignored for "
                f"{image.height} x {image.width} pixels; distinct classes in order, below {num_classes}, with their "
                "pixels and confidence wanted, that fill the image together with what is ignored."
            )
