"""A training as data: what every worker gets. Without torch."""

from __future__ import annotations

from dataclasses import dataclass

from proxyclip.training.student.masks import Masks
from proxyclip.training.student.settings import TrainSettings
from proxyclip.vocabulary.thresholds import Thresholds

# Written last: the student is complete.
DONE = "done.json"


@dataclass(frozen=True)
class Job:
    """labels, images: the output and its images (None: where they were labelled). masks: what the output held.

    uris: the labelled sample to validate on, of val_images with val_labels; empty: held-out pseudo-labels.
    output: where checkpoints and results go. encoder_weights: a file, "download", or None for random ones.
    licences: of all that goes in. every: steps between two checkpoints with validation.
    """

    settings: TrainSettings
    labels: str
    images: str | None
    masks: Masks
    output: str
    encoder_weights: str | None
    ignore_below: float | None
    thresholds: Thresholds | None
    val_images: str
    val_labels: str
    uris: tuple[str, ...]
    licences: tuple[tuple[str, str], ...]
    every: int
    loaders: int = 0
    threads: int = 1
    fraction: float = 1.0
