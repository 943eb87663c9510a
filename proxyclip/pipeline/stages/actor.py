"""The actors of a run, and what each is made from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import ray

from proxyclip.config import RunConfig

# Shards that an actor works on: the second is read while the first is in the networks.
SHARDS_AT_ONCE = 2


@dataclass(frozen=True)
class Actors:
    """How many actors label, and what each reserves.

    at_most: None if they are as many as the cluster comes to hold. num_gpus: of each; 0: none.
    """

    at_first: int
    at_most: int | None
    num_gpus: float
    resources: dict[str, float]

    def share_of_cores(self) -> int:
        """The cores of this machine for each of the actors that it holds; at least 1. Asked in a worker of Ray."""
        machines = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        here = ray.get_runtime_context().get_node_id()
        resources: dict[str, float] = next((node["Resources"] for node in machines if node["NodeID"] == here), {})
        if self.num_gpus:
            bears = int(resources.get("GPU", 0) / self.num_gpus)
            sharing = bears if self.at_most is None else min(bears, self.at_most)
        else:
            sharing = math.ceil(self.at_first / max(len(machines), 1))
        return max(int(resources.get("CPU", 1)) // max(sharing, 1), 1)


@dataclass(frozen=True)
class ActorConfig:
    """What an actor is made from. It is small, since Ray keeps it for restarts.

    weights: hash of each weight file in the recipe, by part ("clip", "proxy") or file. threads: 0 is a share of the
    machine's cores. masks: whether images are labelled. codec: how features are kept; None: not at all. collect:
    whether statistics are collected for `adapt`. head: whether the output has a head that labels. regions: where the
    images' regions lie; None: there are none.
    compiled: whether the networks are compiled on a GPU.
    """

    segmenter: RunConfig
    weights: dict[str, str]
    output: str
    device: str
    threads: int
    batch_windows: int
    confidence_stride: int
    image_timeout_s: float
    masks: bool = True
    codec: str | None = None
    collect: bool = False
    head: bool = False
    regions: str | None = None
    compiled: bool = False
