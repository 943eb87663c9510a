"""The check of one committed shard, of masks or of features: its files and rows against plan and commit."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from proxyclip.config import CODEC_NAMES
from proxyclip.dataset.commits import Commit
from proxyclip.dataset.layout import commit_key
from proxyclip.dataset.masks import confidence_from_png, mask_from_png
from proxyclip.dataset.rows import ALL_KINDS, KINDS
from proxyclip.dataset.statistics import shard_stats
from proxyclip.images.listing import ImageRef
from proxyclip.storage.store import Storage

# What can be raised when a damaged file is read.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException)


@dataclass
class ShardCheck:
    """The result. problems: (file, what is wrong). stats: of all rows. live_stats: of the rows that are not dead."""

    problems: list[tuple[str, str]] = field(default_factory=list)
    stats: pa.Table | None = None
    live_stats: pa.Table | None = None


def check_shard(
    storage: Storage, shard: int, commit: Commit, planned: Collection[str], dead: Collection[str], stride: int
) -> ShardCheck:
    """Read and check all files of a shard. A file that is missing or damaged is a problem in the result.

    planned: the uris of its images. dead: uris of its dead rows. stride: that of the confidence maps.
    Raises OSError if the storage fails.
    """
    check = ShardCheck()
    tables = _read_tables(storage, shard, commit, list(KINDS), check.problems)
    if tables is None:
        return check
    masks, stats, failures = (tables[kind] for kind in ("masks", "stats", "failures"))
    uris = masks["uri"].to_pylist() + failures["uri"].to_pylist()
    for what in (*_wrong_uris(uris, planned), *_wrong_masks(masks, stride)):
        check.problems.append((_place(shard, commit, "masks"), what))
    names = dict(zip(stats["class"].to_pylist(), stats["name"].to_pylist(), strict=True))
    occurring = {index for classes in masks["classes"].to_pylist() for index in classes}
    if occurring != names.keys() or not shard_stats(shard, masks, names).equals(stats):
        check.problems.append((_place(shard, commit, "stats"), "the statistics are not the sums of the masks"))
    if not check.problems:
        check.stats = check.live_stats = stats
        if dead:
            live = masks.filter(pc.invert(pc.is_in(masks["uri"], value_set=pa.array(dead, pa.string()))))
            check.live_stats = shard_stats(shard, live, names)
    return check


def check_features(
    features: Storage, shard: int, commit: Commit, planned: Sequence[ImageRef], codec: str
) -> ShardCheck:
    """Read and check the features of a shard, but for the bytes of a codec: these are only compared with their hash.

    features: where they and their commits are. planned: the shard's images. codec: that of features.json.
    Raises OSError if the storage fails.
    """
    check = ShardCheck()
    tables = _read_tables(features, shard, commit, ("features", "failures"), check.problems)
    if tables is None:
        return check
    etags = {image.uri: image.etag for image in planned}
    uris = tables["features"]["uri"].to_pylist() + tables["failures"]["uri"].to_pylist()
    for what in (*_wrong_uris(uris, etags), *_wrong_features(tables["features"], etags, codec)):
        check.problems.append((_place(shard, commit, "features"), what))
    return check


def _read_tables(
    storage: Storage, shard: int, commit: Commit, kinds: Sequence[str], problems: list[tuple[str, str]]
) -> dict[str, pa.Table] | None:
    """The files of a shard by kind, or None if one of them is missing or damaged. `problems` gets what is wrong."""
    if commit.shard != shard:
        problems.append((commit_key(shard), f"is the commit of shard {commit.shard}"))
    tables = {}
    for kind in kinds:
        try:
            tables[kind] = _table(storage, commit, kind)
        except _Wrong as wrong:
            problems.append((_place(shard, commit, kind), str(wrong)))
    if len(tables) < len(kinds):
        return None
    counts = {"masks": commit.labelled, "features": commit.labelled, "failures": commit.failed}
    for kind, table in tables.items():
        count = counts.get(kind, table.num_rows)
        if table.num_rows != count:
            what = f"has {table.num_rows} rows, but the commit of shard {shard} says {count}"
            problems.append((_place(shard, commit, kind), what))
    return tables


def _place(shard: int, commit: Commit, kind: str) -> str:
    """Where to look for the rows of one kind: their file, or the commit if it names none."""
    return commit.files[kind].key if kind in commit.files else commit_key(shard)


def _wrong_uris(uris: Sequence[str], planned: Collection[str]) -> Iterator[str]:
    """What is wrong with the images that have rows: each planned image must have one."""
    rows = Counter(uris)
    wanted = set(planned)
    for what, wrong in (
        ("has {} rows instead of one", [uri for uri, count in rows.items() if count > 1]),
        ("is planned for this shard, but has no row", sorted(wanted - rows.keys())),
        ("is not planned for this shard", sorted(rows.keys() - wanted)),
    ):
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            yield f"{wrong[0]!r} {what.format(rows[wrong[0]])}{more}"


class _Wrong(Exception):  # noqa: N818
    """A file is missing or damaged."""


def _table(storage: Storage, commit: Commit, kind: str) -> pa.Table:
    file = commit.files.get(kind)
    if file is None:
        return ALL_KINDS[kind].empty_table()
    try:
        data = storage.read(file.key)
    except FileNotFoundError:
        raise _Wrong("is missing") from None
    if hashlib.sha256(data).hexdigest() != file.sha256 or len(data) != file.size_bytes:
        raise _Wrong(f"its {len(data)} bytes are not the {file.size_bytes} bytes that were committed (sha256 differs)")
    try:
        table = pq.read_table(pa.BufferReader(data))
    except UNREADABLE as error:
        raise _Wrong(f"is not readable as Parquet: {error}") from error
    if table.schema != ALL_KINDS[kind] or table.schema.metadata != ALL_KINDS[kind].metadata:
        raise _Wrong(f"its columns or their version are not those of {kind}: {', '.join(table.schema.names)}")
    if table.num_rows != file.rows:
        raise _Wrong(f"has {table.num_rows} rows, but the commit says {file.rows}")
    return table


def _wrong_masks(masks: pa.Table, stride: int) -> Iterator[str]:
    """What is wrong with the images whose mask or confidence does not agree with the other columns."""
    for row in masks.to_pylist():
        try:
            labels = mask_from_png(row["mask"]["bytes"])
            confidence = confidence_from_png(row["confidence"]["bytes"])
        except UNREADABLE as error:
            yield f"{row['uri']!r}: {error}"
            continue
        size = row["height"], row["width"]
        reduced = -(-size[0] // stride), -(-size[1] // stride)
        counts = np.bincount(labels.ravel(), minlength=256)
        ignore = np.iinfo(labels.dtype).max
        ignored = int(counts[ignore]) if ignore < len(counts) else 0
        counts[ignore : ignore + 1] = 0
        classes = np.flatnonzero(counts)
        if labels.shape != size or confidence.shape != reduced:
            shapes = f"mask has shape {labels.shape} and confidence {confidence.shape}"
            yield f"{row['uri']!r}: {shapes}; the image is {size}, so confidence must have {reduced}"
        elif (classes.tolist(), counts[classes].tolist(), ignored) != (row["classes"], row["pixels"], row["ignored"]):
            yield f"{row['uri']!r}: the pixels per class in the mask are not those in the columns"


def _wrong_features(rows: pa.Table, etags: Mapping[str, str], codec: str) -> Iterator[str]:
    codecs = [name for name in CODEC_NAMES if name in (codec, "exact")]  # what does not fit a codec is kept as exact
    sizes = pc.binary_length(rows["bytes"]).to_pylist()
    for row, size_bytes in zip(rows.drop_columns(["bytes"]).to_pylist(), sizes, strict=True):
        uri, etag = row["uri"], row["etag"]
        if etag != etags.get(uri, etag):
            yield f"{uri!r} has features of version {etag!r} of the image, but version {etags[uri]!r} is planned"
        if row["codec"] not in codecs:
            yield f"{uri!r} has codec {row['codec']!r}; with the codec of features.json it is {' or '.join(codecs)}"
        if not size_bytes:
            yield f"{uri!r} has no bytes"
        if not 0 <= row["max_error"] < inf:
            yield f"{uri!r} has max_error {row['max_error']}"
        for axis, side in (("y", "height"), ("x", "width")):
            if not _fits(row, axis, side):
                sides = f"{row[side]} pixels, {row[f'resized_{side}']} when resized, {row[f'grid_{side}']} patches"
                yield f"{uri!r} has windows that do not fit its {side} ({sides}): {row['windows'][axis]}"


def _fits(row: Mapping[str, Any], axis: str, side: str) -> bool:
    """Whether the windows along an axis cover it from end to end, without gaps, with a patch grid each."""
    try:
        windows, whole = row["windows"][axis], row["windows"]["whole"]
        starts, length = windows["starts"], windows["length"]
        padding = windows["pad_before"], windows["pad_after"]
        return (
            row[side] > 0
            and min(padding) >= 0
            and 0 < row[f"grid_{side}"] <= length + sum(padding)
            and starts[0] == 0
            and starts[-1] + length == row[f"resized_{side}"]
            and all(0 < after - before <= length for before, after in pairwise(starts))
            and not (whole and len(starts) > 1)
        )
    except (*UNREADABLE, IndexError):  # a value is missing
        return False
