"""The check of all commits of an output, of its masks or of its features: each shard, and the segments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from proxyclip.dataset.commits import (
    Commit,
    block_of,
    block_shards,
    parse_segment,
    read_commit,
)
from proxyclip.dataset.layout import commit_key, segment_key
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.plan import PlanPart
from proxyclip.dataset.segments import read_sums
from proxyclip.dataset.statistics import ClassSums
from proxyclip.dataset.upkeep.shard_check import UNREADABLE, ShardCheck
from proxyclip.images.listing import ImageRef
from proxyclip.storage.store import StorageError

CHECKS_AT_ONCE = 4


@dataclass(frozen=True)
class Problem:
    """Something broken.

    place: the file. shard, block: the shard, or the block of the segment, that it belongs to. features: whether it
    belongs to the features, which have commits of their own.
    """

    place: str
    what: str
    shard: int | None = None
    block: int | None = None
    features: bool = False


class CommitsCheck:
    """Reads what is committed for a plan and checks it. problems: what is broken, with keys relative to the commits'.

    check: reads and checks the files of a shard with such a commit and such planned images.
    """

    def __init__(self, manifest: Manifest, check: Callable[[int, Commit, Sequence[ImageRef]], ShardCheck]) -> None:
        self.problems: list[Problem] = []
        self._plan = manifest.plan
        self._storage = manifest.commits
        self._check = check
        self._done = manifest.committed()
        self._in_block: dict[int, ClassSums] = defaultdict(ClassSums)  # over each block, with dead rows
        self._segment: tuple[int, dict[int, Commit]] = (-1, {})

    def shards(self, parts: Sequence[PlanPart]) -> Iterator[tuple[int, ShardCheck]]:
        """Check the committed shards of the plan, then the segments. Yields a shard's number of images and its check.

        parts: all of the plan.
        """
        planned = num_shards(parts)
        for shard in sorted(shard for shard in self._done.loose if shard >= planned):
            self._problem(commit_key(shard), "is the commit of a shard that is not planned", shard)
        for part in parts:
            yield from self._check_part(part)
        for block in sorted(self._done.segments):
            self._check_segment_sums(block)

    def _check_part(self, part: PlanPart) -> Iterator[tuple[int, ShardCheck]]:
        commits = {shard: commit for shard in part.shards if (commit := self._commit(shard)) is not None}
        if not commits:
            return
        images = self._plan.images(part.part, list(commits))
        with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
            checks = pool.map(self._check, commits, commits.values(), (images[shard] for shard in commits))
            for shard, found in zip(commits, checks, strict=True):
                for place, what in found.problems:
                    self._problem(place, what, shard)
                if found.stats is not None:
                    self._in_block[block_of(shard)].add_stats(found.stats)
                yield len(images[shard]), found

    def _problem(self, place: str, what: str, shard: int | None = None, block: int | None = None) -> None:
        self.problems.append(Problem(place, what, shard, block))

    def _commit(self, shard: int) -> Commit | None:
        """The commit of a shard; None if it has none, or a damaged one."""
        block = block_of(shard)
        if block in self._done.segments:
            if self._segment[0] != block:
                self._segment = block, self._read_segment(block)
            return self._segment[1].get(shard)
        if shard not in self._done:
            return None
        try:
            data = self._storage.read(commit_key(shard))
        except FileNotFoundError:
            return read_commit(self._storage, shard)  # a compaction has moved it since the listing
        try:
            return Commit.from_json(data, commit_key(shard))
        except UNREADABLE as error:
            self._problem(commit_key(shard), f"cannot be read: {error}", shard)
            return None

    def _read_segment(self, block: int) -> dict[int, Commit]:
        data = self._storage.read(segment_key(block))
        try:
            commits = parse_segment(data)
        except UNREADABLE as error:
            self._problem(segment_key(block), f"cannot be read: {error}", block=block)
            return {}
        if sorted(commits) != list(block_shards(block)):
            shards = f"{block_shards(block).start} to {block_shards(block).stop - 1}"
            what = f"has commits of {len(commits)} shards; it must have those of shards {shards}"
            self._problem(segment_key(block), what, block=block)
        return commits

    def _check_segment_sums(self, block: int) -> None:
        """Check the sums in a segment's footer, unless something else of the block is already broken."""
        if any(problem.block == block for problem in self.problems):
            return
        if any(block_of(problem.shard) == block for problem in self.problems if problem.shard is not None):
            return
        commits = self._read_segment(block).values()
        wanted = [sum(getattr(commit, name) for commit in commits) for name in ("images", "labelled", "failed")]
        try:
            sums = read_sums(self._storage, block)
        except StorageError:
            raise
        except UNREADABLE as error:
            self._problem(segment_key(block), f"the sums in its footer cannot be read: {error}", block=block)
            return
        if [sums.images, sums.labelled, sums.failed] != wanted or sums.classes != self._in_block[block]:
            self._problem(segment_key(block), "the sums in its footer are not those of its shards", block=block)


def num_shards(parts: Sequence[PlanPart]) -> int:
    """How many shards are planned."""
    return parts[-1].shards.stop if parts else 0
