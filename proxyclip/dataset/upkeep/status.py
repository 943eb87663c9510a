"""`status`: how far a run is, from what it has written so far."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, pairwise

from proxyclip.dataset.commits import Commit, Done, read_commits
from proxyclip.dataset.manifest import Manifest, Totals
from proxyclip.dataset.segments import read_sums
from proxyclip.dataset.shards import read_table
from proxyclip.storage.store import Storage

# Files of failures that are read, the latest shards first.
MAX_FAILURE_FILES = 1000
# The rate is that of this time before the last commit, and of at most this many commits.
RATE_WINDOW_S = 3600
_RATE_COMMITS = 500


@dataclass(frozen=True)
class Status:
    """How far a run is.

    images_per_s, left_s: None where too little was committed to tell. last_commit_s: seconds since the last commit,
    None before the first. failures: images by (status, reason), of `failures_of` shards that have some.
    """

    totals: Totals
    finished: bool
    images_per_s: float | None
    left_s: float | None
    last_commit_s: float | None
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures_of: int = 0


def status(storage: Storage) -> Status:
    """How far the run of an output is, while it runs or after. Raises FileNotFoundError where no run was begun."""
    manifest = Manifest(storage)
    manifest.run_record()
    done = manifest.committed()
    totals = manifest.totals()
    times = sorted(_commit_times(storage))
    rate = _rate(storage, done, times)
    left = totals.planned - totals.labelled - totals.failed
    failures, failures_of = _failures(manifest, done)
    return Status(
        totals,
        finished=0 < totals.shards == totals.committed and manifest.has_class_stats(),
        images_per_s=rate,
        left_s=left / rate if rate else None,
        last_commit_s=max(time.time() - times[-1][0], 0) if times else None,
        failures=failures,
        failures_of=failures_of,
    )


def _commit_times(storage: Storage) -> Iterator[tuple[int, str]]:
    for entry in storage.list("commits"):
        if re.fullmatch(r"commits/(\d{6,}\.json|segment-\d{5,}\.parquet)", entry.key):
            yield entry.modified_s, entry.key


def _rate(storage: Storage, done: Done, times: list[tuple[int, str]]) -> float | None:
    """Images per second lately: of the loose commits, or else of the segments, whose times are coarser."""
    loose = [(time_s, int(key[8:-5])) for time_s, key in times if key.endswith(".json")]
    loose = [(time_s, shard) for time_s, shard in loose if shard in done.loose][-_RATE_COMMITS:]
    loose = [(time_s, shard) for time_s, shard in loose if time_s >= loose[-1][0] - RATE_WINDOW_S]
    if len(loose) > 1 and loose[-1][0] > loose[0][0]:
        after_first = [shard for time_s, shard in loose if time_s > loose[0][0]]
        images = sum(commit.images for commit in read_commits(storage, done, after_first))
        return images / (loose[-1][0] - loose[0][0])
    segments = [(time_s, int(key[16:-8])) for time_s, key in times if key.endswith(".parquet")]
    for (before_s, _), (after_s, block) in pairwise(segments[-2:]):
        if after_s > before_s:
            return read_sums(storage, block).images / (after_s - before_s)
    return None


def _failures(manifest: Manifest, done: Done) -> tuple[Counter[tuple[str, str]], int]:
    counts: Counter[tuple[str, str]] = Counter()
    dead = manifest.plan.dead()
    read = 0
    for commit in islice(_failed(manifest.storage, done), MAX_FAILURE_FILES):
        read += 1
        for row in read_table(manifest.storage, commit, "failures").to_pylist():
            if row["uri"] not in dead.get(commit.shard, ()):
                counts[row["status"], row["reason"]] += 1
    return counts, read


def _failed(storage: Storage, done: Done) -> Iterator[Commit]:
    """The commits with failed images: the loose ones, then those of the segments from the last on."""
    yield from (commit for commit in read_commits(storage, done, done.loose) if commit.failed)
    for block in sorted(done.segments, reverse=True):
        if read_sums(storage, block).failed:
            only = Done(frozenset([block]), frozenset(), frozenset())
            yield from (commit for commit in read_commits(storage, only) if commit.failed)
