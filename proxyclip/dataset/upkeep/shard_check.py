"""One committed shard, read again down to its pixels and held against plan and commit."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from proxyclip.dataset.commits import Commit
from proxyclip.dataset.masks import decode_confidence, decode_mask
from proxyclip.dataset.rows import KINDS
from proxyclip.dataset.statistics import shard_stats
from proxyclip.storage.store import Storage

# What reading a file that is not what it should be can raise; pyarrow's own errors are among them.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException)


@dataclass
class ShardCheck:
    """What was found: problems (file, what is wrong), and the statistics of all rows and of those that live."""

    problems: list[tuple[str, str]] = field(default_factory=list)
    stats: pa.Table | None = None
    live_stats: pa.Table | None = None


def check_shard(
    storage: Storage, shard: int, commit: Commit, planned: Collection[str], dead: Collection[str], stride: int
) -> ShardCheck:
    """Read all files of a shard. planned: its images; dead: those that no longer count; stride: of confidence maps.

    Raises OSError where the storage fails, which says nothing of the shard.
    """
    check = ShardCheck()
    counts = {"masks": commit.labelled, "failures": commit.failed}
    tables = {}
    for kind in KINDS:
        try:
            tables[kind] = _table(storage, commit, kind)
        except _Wrong as wrong:
            check.problems.append((commit.files[kind].key, str(wrong)))
            continue
        if tables[kind].num_rows != counts.get(kind, tables[kind].num_rows):
            what = f"{tables[kind].num_rows} rows found, {counts[kind]} wanted by the commit of shard {shard}"
            check.problems.append((kind, what))
    if commit.shard != shard:
        check.problems.append(("commits", f"the commit of shard {shard} says that it is of shard {commit.shard}"))
    if len(tables) < len(KINDS):
        return check
    masks, stats, failures = (tables[kind] for kind in ("masks", "stats", "failures"))
    place = commit.files["masks"].key if "masks" in commit.files else f"shard {shard}"
    found = Counter(masks["uri"].to_pylist() + failures["uri"].to_pylist())
    for what, uris in (
        ("is there {} times, once wanted", [uri for uri, count in found.items() if count > 1]),
        ("is planned for this shard, and neither in masks nor in failures", sorted(set(planned) - found.keys())),
        ("is not planned for this shard", sorted(found.keys() - set(planned))),
    ):
        if uris:
            more = f" (and {len(uris) - 1} more)" if len(uris) > 1 else ""
            check.problems.append((place, f"{uris[0]!r} {what.format(found[uris[0]])}{more}"))
    for uri, what in _wrong_masks(masks, stride):
        check.problems.append((place, f"{uri!r}: {what}"))
    names = dict(zip(stats["class"].to_pylist(), stats["name"].to_pylist(), strict=True))
    every = sorted({index for classes in masks["classes"].to_pylist() for index in classes})
    if every != sorted(names) or not shard_stats(shard, masks, names).equals(stats):
        place = commit.files["stats"].key if "stats" in commit.files else f"shard {shard}"
        check.problems.append((place, "statistics found that are not the sums of the masks"))
    if not check.problems:
        check.stats = check.live_stats = stats
        if dead:
            live = masks.filter(pc.invert(pc.is_in(masks["uri"], value_set=pa.array(dead, pa.string()))))
            check.live_stats = shard_stats(shard, live, names)
    return check


class _Wrong(Exception):  # noqa: N818
    """A file is not what it should be."""


def _table(storage: Storage, commit: Commit, kind: str) -> pa.Table:
    file = commit.files.get(kind)
    if file is None:
        return KINDS[kind].empty_table()
    try:
        data = storage.read(file.key)
    except FileNotFoundError:
        raise _Wrong("is missing") from None
    if hashlib.sha256(data).hexdigest() != file.sha256 or len(data) != file.size_bytes:
        raise _Wrong(f"{len(data)} bytes found that are not the {file.size_bytes} bytes committed (sha256)")
    try:
        table = pq.read_table(pa.BufferReader(data))
    except UNREADABLE as error:
        raise _Wrong(f"no readable Parquet: {error}") from error
    if table.schema != KINDS[kind] or table.schema.metadata != KINDS[kind].metadata:
        raise _Wrong(f"columns {', '.join(table.schema.names)} found, those of {kind} in their version wanted")
    if table.num_rows != file.rows:
        raise _Wrong(f"{table.num_rows} rows found, {file.rows} committed")
    return table


def _wrong_masks(masks: pa.Table, stride: int) -> Iterator[tuple[str, str]]:
    """The images whose mask or confidence is not what the columns beside it say, and how."""
    for row in masks.to_pylist():
        try:
            labels = decode_mask(row["mask"]["bytes"])
            confidence = decode_confidence(row["confidence"]["bytes"])
        except UNREADABLE as error:
            yield row["uri"], str(error)
            continue
        size = row["height"], row["width"]
        reduced = -(-size[0] // stride), -(-size[1] // stride)
        counts = np.bincount(labels.ravel(), minlength=256)
        ignore = 255 if labels.dtype == np.uint8 else 65535
        ignored = int(counts[ignore]) if ignore < len(counts) else 0
        counts[ignore : ignore + 1] = 0
        classes = np.flatnonzero(counts)
        if labels.shape != size or confidence.shape != reduced:
            yield row["uri"], f"mask of {labels.shape} and confidence of {confidence.shape} found, {size} wanted"
        elif (classes.tolist(), counts[classes].tolist(), ignored) != (row["classes"], row["pixels"], row["ignored"]):
            yield row["uri"], "a mask found whose pixels per class are not those of its columns"
