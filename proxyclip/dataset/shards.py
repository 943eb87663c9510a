"""The Parquet files of a shard: written, committed, and read again by way of the commit."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from proxyclip.dataset.schemas import FAILURES, KINDS, MASKS, STATS, parquet_bytes
from proxyclip.dataset.store import Storage
from proxyclip.dataset.validate import commit_fields, leads_out

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


@dataclass(frozen=True)
class DataFile:
    key: str
    rows: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Commit:
    """What a shard has left: a file for each kind ("masks", "stats", "failures") that has rows."""

    shard: int
    files: dict[str, DataFile]
    images: int
    labelled: int
    failed: int

    def to_json(self) -> bytes:
        return (json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Commit:
        """Raises ValueError for what no commit of ours can say."""
        fields = commit_fields(data)
        fields["files"] = {kind: DataFile(**file) for kind, file in fields["files"].items()}
        return cls(**fields)


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
    tables = {
        "masks": _masks_table(images),
        "stats": _stats_table(shard, images, class_names),
        "failures": pa.Table.from_pylist([vars(failure) for failure in failures], FAILURES),
    }
    files = {kind: _write(storage, kind, shard, table) for kind, table in tables.items() if table.num_rows}
    commit = Commit(shard, files, len(images) + len(failures), len(images), len(failures))
    if storage.create(_commit_key(shard), commit.to_json()):
        return commit
    return read_commit(storage, shard)


def read_commit(storage: Storage, shard: int) -> Commit:
    """The commit of a shard. Raises FileNotFoundError where it has none."""
    return Commit.from_json(storage.read(_commit_key(shard)))


def committed_shards(storage: Storage) -> list[int]:
    """The numbers of all committed shards, in order: one listing, however many images there are."""
    names = (re.fullmatch(r"commits/(\d{6,})\.json", entry.key) for entry in storage.list("commits"))
    return sorted(int(name[1]) for name in names if name)


def read_shard(storage: Storage, commit: Commit) -> tuple[list[LabelledImage], list[Failure]]:
    """The rows of a committed shard. Raises ValueError where a file is not what the commit says it is."""
    labelled = read_table(storage, commit, "masks").to_pylist()
    failures = read_table(storage, commit, "failures").to_pylist()
    for row in labelled:
        row["mask"], row["confidence"] = row["mask"]["bytes"], row["confidence"]["bytes"]
    return [LabelledImage(**row) for row in labelled], [Failure(**row) for row in failures]


def read_masks(storage: Storage) -> Iterator[LabelledImage]:
    """Every labelled image of a run, shard by shard. What is not committed is not there."""
    for shard in committed_shards(storage):
        yield from read_shard(storage, read_commit(storage, shard))[0]


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
            f"committed: delete {_commit_key(commit.shard)} and run again to label the shard anew."
        )
    return pq.read_table(pa.BufferReader(data))


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


def _stats_table(shard: int, images: Sequence[LabelledImage], class_names: Sequence[str]) -> pa.Table:
    """One row for each class that occurs. Confidence is weighted by pixels, summed in the order of the images."""
    sums: dict[int, list[Any]] = {}
    for image in images:
        for index, pixels, confidence in zip(image.classes, image.pixels, image.class_confidence, strict=True):
            row = sums.setdefault(int(index), [0, 0, 0.0])
            row[0] += 1
            row[1] += int(pixels)
            row[2] += int(pixels) * float(confidence)
    rows = [
        dict(zip(STATS.names, (shard, index, class_names[index], count, pixels, total / pixels), strict=True))
        for index, (count, pixels, total) in sorted(sums.items())
    ]
    return pa.Table.from_pylist(rows, STATS)


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


def _commit_key(shard: int) -> str:
    return f"commits/{shard:06d}.json"
