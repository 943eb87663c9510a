"""The graph of the job: read, label, write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy

from proxyclip.pipeline.stages.actor import SHARDS_AT_ONCE, ActorConfig, Actors
from proxyclip.pipeline.stages.read import ShardSource


class LabelActor:
    """`LabelShards`, imported where the actor runs. So the driver needs no torch, which takes seconds to import."""

    def __init__(self, actors: Actors, config: ActorConfig, *others: Any) -> None:
        from proxyclip.pipeline.stages.label import LabelShards

        if not config.threads:
            config = replace(config, threads=actors.share_of_cores())
        self._stage = LabelShards(config, *others)

    def __call__(self, rows: pa.Table) -> pa.Table:
        return self._stage(rows)


def label_graph(
    source: ShardSource,
    label_arguments: tuple[Any, ...],
    write: Callable[[pa.Table], pa.Table],
    actors: Actors,
) -> ray.data.Dataset:
    """Read, label, write: three operators. They reserve different resources, so that Ray Data runs them side by side.

    label_arguments: of the constructor of `LabelShards`.
    """
    return (
        ray.data.read_datasource(source, num_cpus=0.25, override_num_blocks=source.num_tasks)
        .map_batches(
            LabelActor,
            fn_constructor_args=(actors, *label_arguments),
            batch_size=1,
            batch_format="pyarrow",
            compute=actor_pool(actors.at_first, actors.at_most),
            **actors.resources,
        )
        .map_batches(write, batch_size=None, batch_format="pyarrow", num_cpus=0.25)
    )


def actor_pool(at_first: int, at_most: int | None) -> ActorPoolStrategy:
    """Actors that work on several shards at once, in threads; one more shard waits at each. at_most None: no limit."""
    return ActorPoolStrategy(
        min_size=1,
        max_size=at_most,
        initial_size=at_first,
        max_tasks_in_flight_per_actor=SHARDS_AT_ONCE + 1,
        max_concurrent_calls_per_actor=SHARDS_AT_ONCE,
        enable_true_multi_threading=True,
    )
