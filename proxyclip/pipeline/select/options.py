"""The options of `proxyclip select`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from proxyclip.pipeline.options import unset


@dataclass(frozen=True)
class SelectOptions:
    """Choose the images of an output whose labels by a person would teach most.

    Run the same command again to continue one that stopped, or after the corpus has grown. Another --count
    on the same --output takes seconds.
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OUT")]
    """The --output of `proxyclip label` or `relabel`: a folder or s3://BUCKET/PREFIX. It need not be finished."""
    output: str
    """Folder or prefix to write the list to: an empty one, or that of an earlier run of this command."""

    count: int = 100
    """How many images to choose."""
    concurrency: Annotated[int | None, unset("the cluster's cores", "INT")] = None
    """Number of processes, with one CPU thread each."""
    address: Annotated[
        str | None, unset("RAY_ADDRESS, which ray job submit sets; else Ray starts for 2000 images or more", "STR")
    ] = None
    """Ray cluster to join."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"]), tyro.conf.FlagCreatePairsOff] = False
    """Show Ray's own logs and progress."""

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"--count is {self.count}; choose at least 1 image.")
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError(f"--concurrency is {self.concurrency}; it must be at least 1.")
