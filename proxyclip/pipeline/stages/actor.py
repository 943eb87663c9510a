"""The actors of the job: what one is made from, and the class that Ray Data starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from proxyclip.config import SegmenterConfig

# Shards that an actor works on: the second is read while the first is in the networks.
SHARDS_AT_ONCE = 2


@dataclass(frozen=True)
class ActorConfig:
    """What an actor is made from. It is small, since Ray keeps it for restarts.

    weights: hash of each weight file in the recipe, by part ("clip", "proxy").
    """

    segmenter: SegmenterConfig
    weights: dict[str, str]
    output: str
    device: str
    threads: int
    batch_windows: int
    confidence_stride: int
    image_timeout_s: float


class LabelActor:
    """`LabelShards`, imported where the actor runs. So the driver needs no torch, which takes seconds to import."""

    def __init__(self, *arguments: Any) -> None:
        from proxyclip.pipeline.stages.label import LabelShards

        self._stage = LabelShards(*arguments)

    def __call__(self, rows: pa.Table) -> pa.Table:
        return self._stage(rows)
