"""The graph of a relabelling: numbers of shards, and actors that do everything else. No features pass through Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from proxyclip.config import DecodeConfig, WindowConfig
from proxyclip.pipeline.stages.write import RECEIPT_SCHEMA as _RECEIPT

PENDING_SCHEMA = pa.schema([("shard", pa.int64()), ("targets", pa.list_(pa.int32()))])
RECEIPT_SCHEMA = pa.schema([("target", pa.int32()), *_RECEIPT])

# Shards that an actor works on: one is read or written while the other is decoded.
SHARDS_AT_ONCE = 2

_SHARDS_PER_TASK = 1000

Pending = Sequence[tuple[int, Sequence[int]]]  # shards, each with the numbers of the outputs that lack it


@dataclass(frozen=True)
class TargetConfig:
    """One output of an actor. embedded: resolves once the output has its text embeddings; None if it has."""

    output: str
    decode: DecodeConfig
    embedded: ray.ObjectRef | None


@dataclass(frozen=True)
class RelabelConfig:
    """What an actor is made from. input: URI of the images, which PAMR reads."""

    source: str
    input: str
    windows: WindowConfig
    targets: tuple[TargetConfig, ...]
    confidence_stride: int


class PendingShards(Datasource):
    """Pending shards as rows."""

    def __init__(self, pending: Pending) -> None:
        super().__init__()
        self._parts = [pending[start : start + _SHARDS_PER_TASK] for start in range(0, len(pending), _SHARDS_PER_TASK)]

    @property
    def num_tasks(self) -> int:
        """Read tasks."""
        return len(self._parts)

    def estimate_inmemory_data_size(self) -> int | None:
        """Nothing worth counting."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """One task per part."""
        return [
            ReadTask(
                partial(_rows, part),
                BlockMetadata(num_rows=len(part), size_bytes=None, input_files=None, exec_stats=None),
                schema=PENDING_SCHEMA,
                per_task_row_limit=per_task_row_limit,
            )
            for part in self._parts
        ]


def _rows(pending: Pending) -> Iterator[pa.Table]:
    for shard, targets in pending:
        yield pa.table({"shard": [shard], "targets": [list(targets)]}, schema=PENDING_SCHEMA)


class RelabelActor:
    """`RelabelShards`, imported where the actor runs, so that the driver needs no torch."""

    def __init__(self, *arguments: Any) -> None:
        from proxyclip.pipeline.relabel.stage import RelabelShards

        self._stage = RelabelShards(*arguments)

    def __call__(self, rows: pa.Table) -> pa.Table:
        return self._stage(rows)


def relabel_graph(
    pending: Pending, arguments: tuple[Any, ...], num_actors: int, resources: dict[str, float]
) -> ray.data.Dataset:
    """Two operators. arguments: of the constructor of `RelabelShards`."""
    source = PendingShards(pending)
    return ray.data.read_datasource(source, num_cpus=0.25, override_num_blocks=source.num_tasks).map_batches(
        RelabelActor,
        fn_constructor_args=arguments,
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            min_size=1,
            max_size=num_actors,
            initial_size=num_actors,
            max_tasks_in_flight_per_actor=SHARDS_AT_ONCE + 1,
            max_concurrent_calls_per_actor=SHARDS_AT_ONCE,
            enable_true_multi_threading=True,
        ),
        **resources,
    )
