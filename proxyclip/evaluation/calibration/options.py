"""The options of `proxyclip calibrate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

# The value of --labels for a run without labels.
NO_LABELS = "none"


@dataclass(frozen=True)
class CalibrateOptions:
    """Find thresholds of confidence, from a small labelled sample of an output's images.

    Writes thresholds.json, which label, relabel and export take as --thresholds, and a report: calibration.json and
    reliability.png. Exit codes: 0, done. 2, the command is wrong, or the labels are too few or do not fit.
    """

    output: Annotated[Positional[str], arg(metavar="OUT")]
    """The --output of `proxyclip label` or `relabel`: a folder or s3://BUCKET/PREFIX. It need not be finished."""
    labels: str
    """Folder or prefix of the label files: images of one channel whose values are classes. The label of a/b.jpg is
    a/b.png there. "none": there are no labels; see --share."""
    precision: float = 0.9
    """The share of kept pixels that shall be right, for each class."""
    certainty: float = 0.9
    """How sure the thresholds must be of that: the probability with which the lower bound of the precision holds. A
    higher one keeps fewer pixels."""
    min_images: int = 5
    """Images that a class's threshold must rest on. With fewer, the class takes the threshold of all classes."""
    min_pixels: int = 1000
    """Pixels that a class's threshold must rest on."""
    label_suffix: str = ".png"
    """What a label's name ends in, in place of --image-suffix."""
    image_suffix: Annotated[str | None, arg(metavar="STR", help_behavior_hint="(default: its extension)")] = None
    """The end of an image's name that --label-suffix replaces."""
    label_names: Annotated[str | None, arg(metavar="NAME|FILE", help_behavior_hint="(default: the output's)")] = None
    """The names of the label values, as a vocabulary: see `proxyclip evaluate`, as for the next three options."""
    map: Annotated[str | None, arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """File that gives label values to classes of the output."""
    ignore: Annotated[int | None, arg(metavar="INT", help_behavior_hint="(default: 255, or 65535)")] = None
    """Label value of pixels that do not count."""
    reduce_zero_label: FlagCreatePairsOff[bool] = False
    """0 does not count either, and classes count from 1."""
    share: float = 0.5
    """With --labels none: the share of each class's pixels to keep, the most confident first. It says nothing about
    how many are right."""
    sample: int = 500
    """With --labels none: images to look at, from all over the output."""
    to: Annotated[str | None, arg(metavar="DEST", help_behavior_hint="(default: OUT/calibration)")] = None
    """Folder or prefix to write to."""

    def __post_init__(self) -> None:
        for name in ("precision", "share"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"--{name} is {getattr(self, name)}; it must be above 0 and below 1.")
        if not 0.5 <= self.certainty < 1:
            raise ValueError(f"--certainty is {self.certainty}; it must be from 0.5 to below 1.")
        if self.min_images < 2:
            raise ValueError(
                f"--min-images is {self.min_images}; one image shows nothing about others: give 2 or more."
            )
        for name in ("min_pixels", "sample"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be at least 1.")

        if self.map is not None and (self.label_names is not None or self.reduce_zero_label):
            other = "--label-names" if self.label_names is not None else "--reduce-zero-label"
            raise ValueError(f"--map says what every value is; leave {other} out.")

    @property
    def destination(self) -> str:
        """Where the results go."""
        return self.to if self.to is not None else f"{self.output.rstrip('/')}/calibration"
