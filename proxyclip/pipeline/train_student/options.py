"""The options of `proxyclip train-student`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from proxyclip.pipeline.options import unset
from proxyclip.training.student.settings import TrainSettings


@dataclass(frozen=True)
class TrainStudentOptions:
    """Train a compact segmentation network on the masks of an output. Needs `pip install "proxyclip[students]"`.

    Run the same command again to continue a training that stopped.
    """

    labels: str
    """The --output of `proxyclip label`. It must not grow while the training runs."""
    output: str
    """Folder or prefix for checkpoints and the student."""
    settings: TrainSettings = field(default_factory=TrainSettings)
    """What the student is and how it learns."""
    images: Annotated[str | None, unset("where they were labelled", "URI")] = None
    """Where the images lie, if they were moved."""
    encoder_weights: Annotated[str | None, unset("downloaded by name", "FILE|none")] = None
    """Local file with the weights of the encoder (safetensors, or a file of torch). "none": random weights."""
    encoder_licence: Annotated[str | None, unset("as timm says of its name", "STR")] = None
    """Licence of the encoder's weights, for the card."""
    thresholds: Annotated[str | None, unset("none", "FILE")] = None
    """File of `proxyclip calibrate`: pixels below the threshold of their class are ignored."""
    ignore_below: Annotated[float | None, unset("none", "FLOAT")] = None
    """Pixels whose confidence is below this are ignored."""
    val_labels: Annotated[str | None, unset("none", "URI")] = None
    """Folder of index PNGs to validate on, under the images' names; values are the output's classes, 255 is ignored.
    Such images are not learned from. Without it, some of the output's images are held out (--held-out)."""
    val_images: Annotated[str | None, unset("the output's", "URI")] = None
    """The images of --val-labels."""
    checkpoint_every: int = 200
    """Steps between two checkpoints. Each one validates."""
    fraction: float = 1.0
    """Share of the images to learn from."""
    workers: int = 1
    """Workers of Ray Train. Each has its own batches of --batch-size."""
    gpu: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """One GPU for each worker (NCCL). Otherwise CPUs (gloo)."""
    threads: int = 1
    """CPU threads of a worker."""
    loaders: int = 0
    """Processes of a worker that read and augment images. 0: the worker itself."""
    address: Annotated[str | None, unset("RAY_ADDRESS, or a local one", "STR")] = None
    """Ray cluster to join."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"]), tyro.conf.FlagCreatePairsOff] = False
    """Show Ray's own logs."""

    def __post_init__(self) -> None:
        for name in ("workers", "threads", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be at least 1.")
        if self.loaders < 0:
            raise ValueError(f"--loaders is {self.loaders}; it must be 0 or more.")
        if not 0 < self.fraction <= 1:
            raise ValueError(f"--fraction is {self.fraction}; it must be above 0 and at most 1.")
        if self.thresholds is not None and self.ignore_below is not None:
            raise ValueError("give --thresholds, or --ignore-below for all classes, not both.")
        if self.ignore_below is not None and not 0 <= self.ignore_below <= 1:
            raise ValueError(f"--ignore-below is {self.ignore_below}; it must be from 0 to 1.")
        if self.val_images is not None and self.val_labels is None:
            raise ValueError("--val-images needs --val-labels.")
        if self.val_labels is None and not self.settings.held_out:
            raise ValueError("there is nothing to validate on: give --val-labels, or a --held-out above 0.")
