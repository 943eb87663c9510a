"""Run a pass: work on every shard of an output that is not done yet, here or on a Ray cluster."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.reading.passes import Ledger, ShardState, shard_states
from proxyclip.pipeline.progress import RunProgress
from proxyclip.pipeline.run import ERRORS_IN_A_ROW, prepare_ray

# A pass over fewer images than this, with no cluster named, is done in this process: starting Ray takes seconds.
IMAGES_WITHOUT_RAY = 2000


class ShardWork(Protocol):
    """What a pass does with a shard. It is pickled to the actors, so it holds addresses, not connections or arrays."""

    def __call__(self, shard: int, before: Sequence[bytes]) -> bytes:
        """Work on a shard. Returns what its receipt says.

        before: what it gave in earlier states; its images may have been others. Whatever was written then and is not
        now must be removed. A shard may be worked on twice, also at the same time, and must leave the same bytes.
        """


class Task(NamedTuple):
    """A shard to work on, and the states in which it was done before."""

    shard: int
    state: str
    before: tuple[str, ...]


@dataclass
class PassSummary:
    """How a pass ended. states: the shards it covers. errors: by shard. stopped: why it stopped early."""

    images: int
    states: list[ShardState]
    errors: dict[int, str] = field(default_factory=dict)
    stopped: str | None = None

    @property
    def finished(self) -> bool:
        return not self.errors and self.stopped is None


def run_pass(
    labels: Labels,
    ledger: Ledger,
    work: ShardWork,
    *,
    verb: str,
    inputs: str = "",
    address: str | None = None,
    concurrency: int | None = None,
    verbose: bool = False,
    states: list[ShardState] | None = None,
) -> PassSummary:
    """Work on the shards that are new or have changed since the last run of this pass, the changed ones first.

    Ray starts only if there is much to do, or if a cluster is named. verb: what progress calls it ("exporting").
    inputs: a hash of what the work reads besides the labels; when it changes, every shard is worked on again.
    states: those of all shards, if what the work makes of some shards depends on yet more.
    """
    states, receipts = states or shard_states(labels, inputs), ledger.receipts()
    images = {commit.shard: commit.labelled for commit in labels.commits()}
    tasks = [
        Task(shard, state, tuple(old for old in receipts.get(shard, ()) if old != state))
        for shard, state in states
        if state not in receipts.get(shard, ())
    ]
    summary = PassSummary(sum(images.values()), states)
    if not tasks:
        return summary
    done = summary.images - sum(images[task.shard] for task in tasks)
    changed, new = [task for task in tasks if task.before], [task for task in tasks if not task.before]
    each = ShardTask(ledger, work)
    in_a_row = 0
    with RunProgress(summary.images, done, 0, verb=verb) as progress:
        # What a changed shard no longer has may be in a new one under the same name: so it is removed first.
        for some in filter(None, (changed, new)):
            run = _here if _is_small(some, images, address) else _on_ray(address, concurrency, verbose=verbose)
            for shard, error in run(each, some):
                if error is None:
                    in_a_row = 0
                    progress.add(images[shard], 0)
                    continue
                summary.errors[shard] = error
                in_a_row += 1
                if in_a_row == ERRORS_IN_A_ROW:
                    summary.stopped = f"{in_a_row} shards in a row failed; the last error: {error}"
                    return summary
            if summary.errors:
                break
    return summary


@dataclass(frozen=True)
class ShardTask:
    """The work on a shard and its receipt."""

    ledger: Ledger
    work: ShardWork

    def __call__(self, task: Task) -> str | None:
        """Do a task. Returns the error, or None."""
        try:
            before = [self.ledger.read(task.shard, state) for state in task.before]
            self.ledger.write(task.shard, task.state, self.work(task.shard, before), task.before)
        except Exception as problem:  # the other shards go on
            return "".join(traceback.format_exception_only(problem)).strip()
        return None


def _is_small(tasks: Sequence[Task], images: dict[int, int], address: str | None) -> bool:
    named = address or os.environ.get("RAY_ADDRESS")
    return not named and sum(images[task.shard] for task in tasks) < IMAGES_WITHOUT_RAY


def _here(each: ShardTask, tasks: Sequence[Task]) -> Iterator[tuple[int, str | None]]:
    for task in tasks:
        yield task.shard, each(task)


def _on_ray(
    address: str | None, concurrency: int | None, *, verbose: bool
) -> Callable[[ShardTask, Sequence[Task]], Iterator[tuple[int, str | None]]]:
    prepare_ray()
    from proxyclip.pipeline.passes.graph import run_on_ray  # importing Ray takes seconds

    return run_on_ray(address, concurrency, verbose=verbose)
