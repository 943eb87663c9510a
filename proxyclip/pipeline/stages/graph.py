"""The graph of the job: read, label, write."""

from __future__ import annotations

from typing import Any

import ray.data
from ray.data import ActorPoolStrategy

from proxyclip.pipeline.stages.label import SHARDS_AT_ONCE, LabelShards
from proxyclip.pipeline.stages.read import ShardSource
from proxyclip.pipeline.stages.write import WriteShards


def label_graph(
    source: ShardSource,
    stage: type[LabelShards],
    arguments: tuple[Any, ...],
    writer: WriteShards,
    actors: int,
    resources: dict[str, float],
) -> ray.data.Dataset:
    """Read, label, write: three operators, kept apart by what they reserve so that they overlap.

    arguments: of the label stage's constructor.
    """
    return (
        ray.data.read_datasource(source, num_cpus=0.25, override_num_blocks=source.num_tasks)
        .map_batches(
            stage,
            fn_constructor_args=arguments,
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=1,
                max_size=actors,
                initial_size=actors,
                max_tasks_in_flight_per_actor=SHARDS_AT_ONCE + 1,
                max_concurrent_calls_per_actor=SHARDS_AT_ONCE,
                enable_true_multi_threading=True,
            ),
            **resources,
        )
        .map_batches(writer, batch_size=None, batch_format="pyarrow", num_cpus=0.25)
    )
