"""The options of the verbs that draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg


@dataclass(frozen=True)
class PreviewOptions:
    """Draw the first images of a run with their masks, into OUTPUT/preview/. The run need not be finished."""

    output: Annotated[Positional[str], arg(metavar="OUT")]
    """The --output of `proxyclip label`: a folder or s3://BUCKET/PREFIX."""
    limit: int = 24
    """How many images to draw."""
    sheet: int = 12
    """How many of them go on the contact sheet."""


@dataclass(frozen=True)
class GalleryOptions:
    """Make a gallery of an output: a folder of web pages. The run need not be finished."""

    output: Annotated[Positional[str], arg(metavar="OUT")]
    """The --output of `proxyclip label`: a folder or s3://BUCKET/PREFIX."""
    to: str | None = None
    """Where to write the gallery: a folder or s3://BUCKET/PREFIX. Default: OUT/gallery."""
    limit: int = 1000
    """How many images to show. Of a larger output, half are drawn so that rare classes are seen, and the others by
    chance."""
    only: Annotated[str | None, arg(metavar="LIST")] = None
    """Show these images only: the list of `proxyclip select`, or another file with a uri a line."""
    seed: int = 0
    """Seed of the draw and of the random order."""
    compare: str | None = None
    """Another output of the same images, to compare with: another vocabulary, another preset, before and after."""
    evaluation: str | None = None
    """evaluation.json of `proxyclip evaluate`, or its folder: adds a page with the scores."""
    size: int = 480
    """Longest side of a thumbnail, in pixels."""
    title: str | None = None
    """Title of the gallery. Default: the last part of OUT."""
    margin: Annotated[bool, FlagCreatePairsOff] = False
    """Also show the margin between the best two classes under the pointer. It is decoded from the features of the
    images shown, so OUT (or what it was relabelled from) must have been labelled with --keep-features."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"--limit is {self.limit}; show at least 1 image.")
        if not 32 <= self.size <= 4096:
            raise ValueError(f"--size is {self.size}; give 32 to 4096 pixels.")
