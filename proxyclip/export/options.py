"""The options of `proxyclip export`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import FlagCreatePairsOff, Positional, arg

FormatName = Literal["png", "coco", "label-studio", "cvat", "yolo", "huggingface", "webdataset", "fiftyone"]


@dataclass(frozen=True)
class ExportOptions:
    """Write the labels of an output in a format that other tools read."""

    output: Annotated[Positional[str], arg(metavar="OUT")]
    """The --output of `proxyclip label`: a folder or s3://BUCKET/PREFIX. It need not be finished."""
    destination: Annotated[Positional[str], arg(metavar="DEST")]
    """Folder or prefix to write to: an empty one, or that of an earlier run of this command."""
    to: Annotated[FormatName, arg(metavar="FORMAT")]
    """png (mmsegmentation), coco, label-studio, cvat, yolo, huggingface, webdataset or fiftyone."""

    thresholds: Annotated[str | None, arg(metavar="FILE")] = None
    """File of `proxyclip calibrate`: a pixel whose confidence is below the threshold of its class becomes ignore."""
    ignore_below: float = 0.0
    """A pixel whose confidence is below this becomes ignore. With --thresholds, the higher of the two counts."""
    classes: Annotated[tuple[str, ...], arg(metavar="NAME [NAME ...]")] = ()
    """Classes to export: their names, or one .txt file with a name per line. Pixels of all others become ignore; the
    exported ones keep their index. Without it, all."""
    min_confidence_image: float = 0.0
    """Leave out images whose mean confidence is below this."""
    only: Annotated[str | None, arg(metavar="LIST")] = None
    """Export these images only: the list of `proxyclip select`, or another file with a uri a line."""
    min_area: int = 0
    """coco and yolo: leave out connected regions of fewer pixels than this."""
    image_prefix: Annotated[str | None, arg(metavar="PREFIX")] = None
    """label-studio: what to put before an image's name to get its address. Without it, the input's own address; for a
    folder, that of Label Studio's local files."""

    concurrency: Annotated[int | None, arg(metavar="INT")] = None
    """Number of processes on a cluster. Without it, the cluster's cores."""
    address: Annotated[str | None, arg(metavar="STR")] = None
    """Ray cluster to use. Without it RAY_ADDRESS, or else none for fewer than 2000 images and a local one for more."""
    verbose: Annotated[bool, arg(aliases=["-v"]), FlagCreatePairsOff] = False
    """Show Ray's own logs and progress."""

    def __post_init__(self) -> None:
        for name in ("ignore_below", "min_confidence_image"):
            if not 0 <= getattr(self, name) <= 1:
                option = name.replace("_", "-")
                raise ValueError(f"--{option} is {getattr(self, name)}; give a confidence from 0 to 1.")
        if self.min_area < 0:
            raise ValueError(f"--min-area is {self.min_area}; give a number of pixels, 0 or more.")
        if self.concurrency is not None and self.concurrency < 1:
            raise ValueError(f"--concurrency is {self.concurrency}; it must be at least 1.")
        if self.min_area and self.to not in ("coco", "yolo"):
            raise ValueError(f"--min-area has no meaning for --to {self.to}; only coco and yolo have regions.")
        if self.image_prefix is not None and self.to != "label-studio":
            raise ValueError(f"--image-prefix has no meaning for --to {self.to}; only label-studio stores addresses.")
