"""The classes of a gallery: those that occur in its one or two outputs, under one number each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from proxyclip.dataset.reading.labels import Labels
from proxyclip.gallery.sampling import ClassSummary, Survey
from proxyclip.vocabulary.palette import default_palette


@dataclass
class Classes:
    """A class is known by its name; classes of both outputs with the same name are one."""

    names: list[str] = field(default_factory=list)
    colours: list[tuple[int, ...]] = field(default_factory=list)
    summaries: list[list[ClassSummary | None]] = field(default_factory=list)

    @property
    def wide(self) -> bool:
        """Whether one byte does not hold the number of a class."""
        return len(self.names) > 255

    @property
    def nothing(self) -> int:
        """The number of pixels without a class."""
        return 65535 if self.wide else 255

    @classmethod
    def of(cls, outputs: Sequence[tuple[Labels, Survey]]) -> Classes:
        """The classes that occur, those of the first output first, in order of their index."""
        classes = cls()
        known: dict[str, int] = {}
        for number, (labels, found) in enumerate(outputs):
            names, colours = labels.vocabulary.class_names, labels.vocabulary.colours
            for summary in found.classes:
                name = names[summary.index]
                position = known.setdefault(name.strip().casefold(), len(classes.names))
                if position == len(classes.names):
                    classes.names.append(name)
                    classes.colours.append(tuple(colours[summary.index].tolist()))
                    classes.summaries.append([None] * len(outputs))
                classes.summaries[position][number] = summary
        classes._make_colours_differ()
        return classes

    def numbers(self, output: int, labels: Labels) -> npt.NDArray[np.uint16]:
        """The number of each value of a mask of an output."""
        table = np.full(labels.ignore + 1, self.nothing, np.uint16)
        for position, summaries in enumerate(self.summaries):
            summary = summaries[output]
            if summary is not None:
                table[summary.index] = position
        return table

    def columns(self) -> dict[str, Any]:
        """The classes as columns of plain values."""
        return {
            "name": self.names,
            "colour": ["#" + bytes(colour).hex() for colour in self.colours],
            "outputs": [[_plain(each) for each in summaries] for summaries in zip(*self.summaries, strict=True)],
        }

    def _make_colours_differ(self) -> None:
        """Give a class of the second output another colour if one of the first has its colour."""
        first = {colour for colour, each in zip(self.colours, self.summaries, strict=True) if each[0]}
        spare = iter(default_palette(2 * len(self.names) + 16).tolist())
        for position, summaries in enumerate(self.summaries):
            if summaries[0] is None and self.colours[position] in first:
                colour = next(tuple(each) for each in spare if tuple(each) not in first)
                self.colours[position] = colour
                first.add(colour)


def _plain(summary: ClassSummary | None) -> list[Any] | None:
    """A summary as a short list. Of its histogram, the number and the height of each bar that is not empty."""
    if summary is None:
        return None
    figures = [round(summary.share, 8), round(summary.mean_confidence, 4)]
    bars = [number for bar in enumerate(summary.histogram) if bar[1] for number in bar]
    return [summary.index, summary.images, summary.pixels, *figures, bars]
