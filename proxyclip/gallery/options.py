"""The options of the verbs that draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class PreviewOptions:
    """Draw the first images of a run with their masks, into OUTPUT/preview/. The run need not be finished."""

    output: Annotated[Positional[str], arg(metavar="OUT")]
    """The --output of `proxyclip label`: a folder or s3://BUCKET/PREFIX."""
    limit: int = 24
    """How many images to draw."""
    sheet: int = 12
    """How many of them go on the contact sheet."""
