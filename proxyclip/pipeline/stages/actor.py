"""What an actor is made from."""

from __future__ import annotations

from dataclasses import dataclass

from proxyclip.config import RunConfig

# Shards that an actor works on: the second is read while the first is in the networks.
SHARDS_AT_ONCE = 2


@dataclass(frozen=True)
class ActorConfig:
    """What an actor is made from. It is small, since Ray keeps it for restarts.

    weights: hash of each weight file in the recipe, by part ("clip", "proxy") or file. masks: whether images are
    labelled. codec: how features are kept; None: not at all. collect: whether statistics are collected for `adapt`.
    head: whether the output has a head that labels. regions: where the images' regions lie; None: there are none.
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
