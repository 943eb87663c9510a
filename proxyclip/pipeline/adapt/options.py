"""The options of `proxyclip adapt`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from proxyclip.pipeline.options import unset


@dataclass(frozen=True)
class AdaptOptions:
    """Learn a head from a labelled corpus, without labels of people and without networks.

    Needs the features that `proxyclip label --keep-features` kept. Use the head with `proxyclip relabel --head` and
    `proxyclip label --head`. Run the same command again to continue one that stopped, or after the corpus has grown.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]
    """The --output of `proxyclip label --keep-features`, or of a `proxyclip relabel` from it. Its vocabulary counts."""
    output: str
    """File to write the head to, or s3://BUCKET/KEY. Sums of every shard are kept in a folder beside it."""

    rounds: int = 2
    """1 learns from what the text embeddings say. 2 learns again from what the first head says, unless it says nearly
    the same."""
    concurrency: Annotated[int | None, unset("the cluster's cores", "INT")] = None
    """Number of processes, with one CPU thread each."""
    address: Annotated[
        str | None, unset("RAY_ADDRESS, which ray job submit sets; else Ray starts for 2000 images or more", "STR")
    ] = None
    """Ray cluster to join."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"]), tyro.conf.FlagCreatePairsOff] = False
    """Show Ray's own logs and progress."""

    def __post_init__(self) -> None:
        if self.rounds not in (1, 2):
            raise ValueError(f"--rounds is {self.rounds}; it must be 1 or 2.")
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError(f"--concurrency is {self.concurrency}; it must be at least 1.")
        if not self.output or self.output.endswith("/"):
            raise ValueError(f"--output is {self.output!r}; give the file to write, for instance head.safetensors.")
