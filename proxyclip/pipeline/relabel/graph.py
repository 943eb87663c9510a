"""The graph of a relabelling: numbers of shards, and actors that do everything else. No features pass through Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray.data

from proxyclip.config import DecodeConfig, WindowConfig
from proxyclip.pipeline.stages.graph import actor_pool
from proxyclip.pipeline.stages.write import RECEIPT_SCHEMA as _RECEIPT

PENDING_SCHEMA = pa.schema([("shard", pa.int64()), ("targets", pa.list_(pa.int32()))])
RECEIPT_SCHEMA = pa.schema([("target", pa.int32()), *_RECEIPT])

# Shards of one Ray Dataset. This bounds what the driver and Ray's scheduler hold; actors start anew for each.
SHARDS_PER_WAVE = 10_000

Pending = Sequence[tuple[int, Sequence[int]]]  # shards, each with the numbers of the outputs that lack it


@dataclass(frozen=True)
class TargetConfig:
    """One output of an actor. embedded: resolves once the output has its text embeddings; None if it has.

    head: whether the output has a head that replaces them.
    """

    output: str
    decode: DecodeConfig
    embedded: ray.ObjectRef | None
    head: bool = False


@dataclass(frozen=True)
class RelabelConfig:
    """What an actor is made from.

    input: URI of the images, which refinements read. regions: where their regions lie; None: there are none.
    """

    source: str
    input: str
    windows: WindowConfig
    targets: tuple[TargetConfig, ...]
    confidence_stride: int
    regions: str | None = None


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
    """One operator. Its input, a block a shard, is the driver's: no node that dies takes it along.

    arguments: of the constructor of `RelabelShards`.
    """
    blocks = [
        pa.table({"shard": [shard], "targets": [list(targets)]}, schema=PENDING_SCHEMA) for shard, targets in pending
    ]
    source: Any = ray.data.from_arrow(blocks)
    graph: ray.data.Dataset = source.map_batches(
        RelabelActor,
        fn_constructor_args=arguments,
        batch_size=1,
        batch_format="pyarrow",
        compute=actor_pool(num_actors, num_actors),
        **resources,
    )
    return graph
