"""The labels of an output, opened for reading: its images, shard by shard or one by one, without dead rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from proxyclip.dataset.commits import Commit, Done, committed, read_commit, read_commits
from proxyclip.dataset.manifest import Manifest, Totals
from proxyclip.dataset.plan import Plan
from proxyclip.dataset.rows import Failure, LabelledImage, failures, labelled_images
from proxyclip.dataset.run_record import RunRecord, read_names, require_run
from proxyclip.dataset.shards import read_columns, read_table
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary, ignore_label

# The columns of MASKS that say what is in an image, without the image's mask.
INDEX_COLUMNS = (
    *("uri", "height", "width", "classes", "pixels", "class_confidence"),
    *("mean_confidence", "ignored"),
)


@dataclass(frozen=True)
class Labels:
    """What a labelling job has committed, as of the moment it is opened.

    It need not be finished. done: its committed shards. dead: for each shard that has dead rows, their uris.
    """

    storage: Storage
    record: RunRecord
    vocabulary: Vocabulary
    done: Done
    dead: Mapping[int, Collection[str]]

    @classmethod
    def open(cls, output: str | Storage) -> Labels:
        """Open an output. Raises FileNotFoundError if no labelling job was begun there."""
        storage = output if isinstance(output, Storage) else Storage(output)
        record = require_run(storage)
        return cls(storage, record, read_names(storage), committed(storage), Plan(storage).dead())

    @property
    def ignore(self) -> int:
        """The value of a mask's pixels that have no class."""
        return ignore_label(self.vocabulary.num_classes)

    @property
    def confidence_stride(self) -> int:
        """Side of the blocks of pixels that have one confidence."""
        return int(self.record.recipe["confidence_stride"])

    @cached_property
    def totals(self) -> Totals:
        """How far the job is."""
        return Manifest(self.storage).totals()

    @property
    def finished(self) -> bool:
        """Whether every planned shard is committed."""
        return self.totals.committed == self.totals.shards

    def commits(self) -> Iterator[Commit]:
        """The commits, in order of shard."""
        return read_commits(self.storage, self.done)

    def read(self, shard: int) -> list[LabelledImage]:
        """The labelled images of a committed shard, in order of uri. Its file is checked against the commit."""
        return self.read_commit(read_commit(self.storage, shard))

    def read_commit(self, commit: Commit) -> list[LabelledImage]:
        """As `read`, for a commit that is read already."""
        return labelled_images(self._live(commit.shard, read_table(self.storage, commit, "masks")))

    def images(self) -> Iterator[LabelledImage]:
        """Every labelled image, shard by shard."""
        for commit in self.commits():
            yield from self.read_commit(commit)

    def failures(self) -> Iterator[Failure]:
        """Every image without a mask, and why."""
        for table in self._each_commit(lambda commit: read_table(self.storage, commit, "failures")):
            yield from failures(table)

    def index(self, columns: Iterable[str] = INDEX_COLUMNS) -> Iterator[pa.Table]:
        """What is in the images, without masks: for each shard a table of `shard` and some of INDEX_COLUMNS.

        Reads these columns alone, and so cannot check a file's hash.
        """
        names = list(columns)

        def read(commit: Commit) -> pa.Table:
            table = self._columns(commit, names)
            return table.add_column(0, "shard", pa.repeat(pa.scalar(commit.shard, pa.int64()), table.num_rows))

        return (table.select(["shard", *names]) for table in self._each_commit(read))

    def read_index(self, shard: int, columns: Iterable[str] = INDEX_COLUMNS) -> pa.Table:
        """What is in the images of a committed shard, without masks: some of INDEX_COLUMNS."""
        names = list(columns)
        return self._live(shard, self._columns(read_commit(self.storage, shard), names)).select(names)

    def _columns(self, commit: Commit, names: list[str]) -> pa.Table:
        return read_columns(self.storage, commit, "masks", list(dict.fromkeys(["uri", *names])))

    def counts(self) -> Iterator[tuple[int, int]]:
        """Each shard and its number of labelled images. Reads the commits, and the uris of shards with dead rows."""

        def count(commit: Commit) -> int:
            if commit.shard not in self.dead:
                return commit.labelled
            return self._live(commit.shard, read_columns(self.storage, commit, "masks", ["uri"])).num_rows

        with ThreadPoolExecutor(8) as pool:
            commits = self.commits()
            while some := list(islice(commits, 10_000)):
                yield from zip([commit.shard for commit in some], pool.map(count, some), strict=True)

    def _each_commit(self, read: Callable[[Commit], pa.Table]) -> Iterator[pa.Table]:
        with ThreadPoolExecutor(8) as pool:
            commits = self.commits()
            while some := list(islice(commits, 64)):  # so that few tables are held at once
                for commit, table in zip(some, pool.map(read, some), strict=True):
                    yield self._live(commit.shard, table)

    def _live(self, shard: int, rows: pa.Table) -> pa.Table:
        gone = self.dead.get(shard)
        if not gone:
            return rows
        return rows.filter(pc.invert(pc.is_in(rows["uri"], value_set=pa.array(sorted(gone), pa.string()))))
