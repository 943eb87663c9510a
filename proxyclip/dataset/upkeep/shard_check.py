"""The check of one committed shard: its files, rows and pixels against plan and commit."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from proxyclip.dataset.commits import Commit
from proxyclip.dataset.layout import commit_key
from proxyclip.dataset.masks import confidence_from_png, mask_from_png
from proxyclip.dataset.rows import KINDS
from proxyclip.dataset.statistics import shard_stats
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
    places = {kind: commit.files[kind].key if kind in commit.files else f"shard {shard}" for kind in KINDS}
    if commit.shard != shard:
        check.problems.append((commit_key(shard), f"is the commit of shard {commit.shard}"))
    tables = {}
    for kind in KINDS:
        try:
            tables[kind] = _table(storage, commit, kind)
        except _Wrong as wrong:
            check.problems.append((places[kind], str(wrong)))
    if len(tables) < len(KINDS):
        return check
    masks, stats, failures = (tables[kind] for kind in ("masks", "stats", "failures"))
    for kind, count in (("masks", commit.labelled), ("failures", commit.failed)):
        if tables[kind].num_rows != count:
            what = f"has {tables[kind].num_rows} rows, but the commit of shard {shard} says {count}"
            check.problems.append((places[kind], what))
    uris = masks["uri"].to_pylist() + failures["uri"].to_pylist()
    for what in (*_wrong_uris(uris, planned), *_wrong_masks(masks, stride)):
        check.problems.append((places["masks"], what))
    names = dict(zip(stats["class"].to_pylist(), stats["name"].to_pylist(), strict=True))
    occurring = {index for classes in masks["classes"].to_pylist() for index in classes}
    if occurring != names.keys() or not shard_stats(shard, masks, names).equals(stats):
        check.problems.append((places["stats"], "the statistics are not the sums of the masks"))
    if not check.problems:
        check.stats = check.live_stats = stats
        if dead:
            live = masks.filter(pc.invert(pc.is_in(masks["uri"], value_set=pa.array(dead, pa.string()))))
            check.live_stats = shard_stats(shard, live, names)
    return check


class _Wrong(Exception):  # noqa: N818
    """A file is missing or damaged."""


def _table(storage: Storage, commit: Commit, kind: str) -> pa.Table:
    file = commit.files.get(kind)
    if file is None:
        return KINDS[kind].empty_table()
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
    if table.schema != KINDS[kind] or table.schema.metadata != KINDS[kind].metadata:
        raise _Wrong(f"its columns or their version are not those of {kind}: {', '.join(table.schema.names)}")
    if table.num_rows != file.rows:
        raise _Wrong(f"has {table.num_rows} rows, but the commit says {file.rows}")
    return table


def _wrong_uris(uris: Sequence[str], planned: Collection[str]) -> Iterator[str]:
    """What is wrong with the images that have rows: each planned image must have one."""
    rows = Counter(uris)
    for what, wrong in (
        ("has {} rows instead of one", [uri for uri, count in rows.items() if count > 1]),
        ("is planned for this shard, but has no row in masks or failures", sorted(set(planned) - rows.keys())),
        ("is not planned for this shard", sorted(rows.keys() - set(planned))),
    ):
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            yield f"{wrong[0]!r} {what.format(rows[wrong[0]])}{more}"


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
