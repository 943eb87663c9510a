"""The options of `proxyclip adapt`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from proxyclip.pipeline.options import unset

_HOW_LABELS_ARE_READ = ("image_suffix", "label_names", "map", "ignore")


@dataclass(frozen=True)
class AdaptOptions:
    """Learn a head from a labelled corpus, without networks, and without labels of people unless there are some.

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
    labels: Annotated[str | None, unset("none", "URI")] = None
    """Folder or prefix of label files that people made or corrected, of some images: see `proxyclip calibrate`, as for
    the next six options. Their patches count as certain."""
    label_suffix: str = ".png"
    """What a label's name ends in, in place of --image-suffix."""
    image_suffix: Annotated[str | None, unset("its extension", "STR")] = None
    """The end of an image's name that --label-suffix replaces."""
    label_names: Annotated[str | None, unset("the output's", "NAME|FILE")] = None
    """The names of the label values, as a vocabulary."""
    map: Annotated[str | None, unset("none", "FILE")] = None
    """File that gives label values to classes of the output."""
    ignore: Annotated[int | None, unset("255, or 65535", "INT")] = None
    """Label value of pixels that do not count."""
    reduce_zero_label: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """0 does not count either, and classes count from 1."""
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
        if self.map is not None and (self.label_names is not None or self.reduce_zero_label):
            other = "--label-names" if self.label_names is not None else "--reduce-zero-label"
            raise ValueError(f"--map says what every value is; leave {other} out.")
        if self.labels is None:
            for name in _HOW_LABELS_ARE_READ:
                if getattr(self, name) is not None:
                    raise ValueError(f"--{name.replace('_', '-')} has no meaning without --labels.")
        if not self.output or self.output.endswith("/"):
            raise ValueError(f"--output is {self.output!r}; give the file to write, for instance head.safetensors.")
