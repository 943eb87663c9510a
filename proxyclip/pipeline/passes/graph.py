"""The graph of a pass: numbers of shards, and actors that work on them. No labels pass through Ray."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy

from proxyclip.pipeline.cluster.join import cluster, configure_data, cpu_share
from proxyclip.pipeline.passes.run import ShardTask, Task

_TASK = pa.schema([("shard", pa.int64()), ("state", pa.string()), ("before", pa.list_(pa.string()))])
_DONE = pa.schema([("shard", pa.int64()), ("error", pa.string())])

# Shards of one Ray Dataset. This bounds what the driver and Ray's scheduler hold.
SHARDS_PER_WAVE = 10_000


class PassActor:
    """Works on shards."""

    def __init__(self, each: ShardTask) -> None:
        self._each = each

    def __call__(self, rows: pa.Table) -> pa.Table:
        tasks = [Task(row["shard"], row["state"], tuple(row["before"])) for row in rows.to_pylist()]
        return pa.Table.from_pylist([{"shard": task.shard, "error": self._each(task)} for task in tasks], _DONE)


def run_on_ray(
    address: str | None, concurrency: int | None, *, verbose: bool
) -> Callable[[ShardTask, Sequence[Task]], Iterator[tuple[int, str | None]]]:
    """What works on tasks on a cluster: gives each shard and its error, or None, in any order."""

    def run(each: ShardTask, tasks: Sequence[Task]) -> Iterator[tuple[int, str | None]]:
        with cluster(address, verbose=verbose):
            configure_data(verbose=verbose)
            num_actors = concurrency or max(int(ray.cluster_resources().get("CPU", 1)), 1)
            for first in range(0, len(tasks), SHARDS_PER_WAVE):
                yield from _wave(each, tasks[first : first + SHARDS_PER_WAVE], num_actors)

    return run


def _wave(each: ShardTask, tasks: Sequence[Task], num_actors: int) -> Iterator[tuple[int, str | None]]:
    blocks = [pa.Table.from_pylist([{**task._asdict(), "before": list(task.before)}], _TASK) for task in tasks]
    source: Any = ray.data.from_arrow(blocks)
    graph = source.map_batches(
        PassActor,
        fn_constructor_args=(each,),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=num_actors, initial_size=num_actors),
        **cpu_share(num_actors),
    )
    batches: Any = iter(graph.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    with contextlib.closing(batches):  # an error here ends the job on the cluster too
        for batch in batches:
            for row in batch.to_pylist():
                yield row["shard"], row["error"]
