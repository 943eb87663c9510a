"""The data files of a shard: written and committed together, and read by way of the commit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from proxyclip.dataset.commits import Commit, DataFile, committed, create_commit, read_commits
from proxyclip.dataset.layout import data_key
from proxyclip.dataset.plan import Plan
from proxyclip.dataset.rows import (
    ALL_KINDS,
    Failure,
    LabelledImage,
    failures,
    failures_table,
    labelled_images,
    masks_table,
    parquet_bytes,
)
from proxyclip.dataset.statistics import shard_stats
from proxyclip.dataset.validate import check_table, leads_out
from proxyclip.storage.store import Storage

_MEND = "`proxyclip verify --repair` drops such shards, and the next run labels them again."


def write_shard(
    storage: Storage,
    shard: int,
    labelled: Sequence[LabelledImage],
    failed: Sequence[Failure],
    class_names: Sequence[str],
) -> Commit:
    """Write the files of a shard, check that they are complete, and commit it.

    Returns the commit that counts. If another writer was first, that is its commit, and nobody reads the files
    written here. The same rows, in any order, give the same bytes, keys and commit.
    Raises ValueError for rows that contradict each other and OSError if the storage fails.
    """
    labelled = sorted(labelled, key=lambda image: image.uri)
    failed = sorted(failed, key=lambda failure: failure.uri)
    _check(shard, labelled, failed, len(class_names))
    masks = masks_table(labelled)
    tables = {
        "masks": masks,
        "stats": shard_stats(shard, masks, class_names),
        "failures": failures_table(failed),
    }
    return commit_tables(storage, shard, tables, len(labelled), len(failed))


def commit_tables(storage: Storage, shard: int, tables: dict[str, pa.Table], labelled: int, failed: int) -> Commit:
    """Write the tables of a shard that have rows, by kind, and commit them. Returns the commit that counts."""
    files = {kind: _write(storage, kind, shard, table) for kind, table in tables.items() if table.num_rows}
    return create_commit(storage, Commit(shard, files, labelled + failed, labelled, failed))


def read_shard(storage: Storage, commit: Commit) -> tuple[list[LabelledImage], list[Failure]]:
    """The images of a committed shard. Raises ValueError if a file was changed since it was committed."""
    return (
        labelled_images(read_table(storage, commit, "masks")),
        failures(read_table(storage, commit, "failures")),
    )


def read_masks(storage: Storage) -> Iterator[LabelledImage]:
    """Every labelled image of a run, shard by shard, without dead rows."""
    dead = Plan(storage).dead()
    for commit in read_commits(storage, committed(storage)):
        gone = dead.get(commit.shard, ())
        yield from (image for image in read_shard(storage, commit)[0] if image.uri not in gone)


def read_table(storage: Storage, commit: Commit, kind: str, mend: str = _MEND) -> pa.Table:
    """The file of one kind, checked against the commit. Empty if there is none. mend: what to do about a broken one."""
    file = commit.files.get(kind)
    if file is None:
        return ALL_KINDS[kind].empty_table()
    data = storage.read(file.key)
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != file.sha256:
        raise ValueError(
            f"{file.key}: the file has {len(data)} bytes with sha256 {sha256[:12]}, but the commit of shard "
            f"{commit.shard} names {file.size_bytes} bytes with sha256 {file.sha256[:12]}. The file was changed after "
            f"it was committed. {mend}"
        )
    return check_table(pq.read_table(pa.BufferReader(data)), ALL_KINDS[kind], file.key)


def read_columns(storage: Storage, commit: Commit, kind: str, columns: list[str]) -> pa.Table:
    """Some columns of a data file. Reads only these, and so cannot check the file's hash."""
    file = commit.files.get(kind)
    if file is None:
        return ALL_KINDS[kind].empty_table().select(columns)
    with storage.open(file.key) as opened:
        return pq.read_table(opened, columns=columns)


def _write(storage: Storage, kind: str, shard: int, table: pa.Table) -> DataFile:
    data = parquet_bytes(table)
    sha256 = hashlib.sha256(data).hexdigest()
    key = data_key(kind, shard, sha256)
    storage.write(key, data)
    stored = storage.stat(key).size_bytes
    if stored != len(data):
        raise OSError(f"{key}: {len(data)} bytes were written, but the storage has {stored}; run the job again.")
    return DataFile(key, table.num_rows, len(data), sha256)


def _check(shard: int, labelled: Sequence[LabelledImage], failed: Sequence[Failure], num_classes: int) -> None:
    if shard < 0:
        raise ValueError(f"shard {shard}: the number of a shard is 0 or more.")
    uris = [image.uri for image in labelled] + [failure.uri for failure in failed]
    if len(set(uris)) < len(uris):
        twice = next(uri for uri in sorted(uris) if uris.count(uri) > 1)
        raise ValueError(f"shard {shard}: {twice!r} occurs twice; an image has one row, in masks or in failures.")
    for image in labelled:
        if leads_out(image.uri):
            raise ValueError(
                f"shard {shard}: {image.uri!r} leads out of the input folder; record it as a failure, not as a mask."
            )
        if problem := _contradiction(image, num_classes):
            raise ValueError(f"shard {shard}: {image.uri!r} {problem}.")


def _contradiction(image: LabelledImage, num_classes: int) -> str | None:
    """What is wrong with the numbers of an image, or None."""
    classes, pixels = list(image.classes), list(image.pixels)
    if not len(classes) == len(pixels) == len(image.class_confidence):
        return (
            f"has {len(classes)} classes, {len(pixels)} pixel counts and {len(image.class_confidence)} confidences; "
            "each class needs one of both"
        )
    if classes != sorted(set(classes)) or any(not 0 <= index < num_classes for index in classes):
        return f"has classes {classes}; they must be different, in order, and from 0 to {num_classes - 1}"
    if any(count < 1 for count in pixels):
        return f"has pixels {pixels} for its classes; each class must have at least 1"
    if sum(pixels) + image.ignored != image.height * image.width:
        return (
            f"has {sum(pixels)} labelled and {image.ignored} ignored pixels; together they must be "
            f"{image.height} x {image.width}"
        )
    return None
