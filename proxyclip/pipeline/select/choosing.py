"""The choice: from the records of a corpus of any size to the images that a person should look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from proxyclip.pipeline.select.records import RECORDS

# Added to the doubt about an image, so that one without any does not win by a factor without limit.
_LEAST_DOUBT = 1e-3

# Shares are added as multiples of this: sums of whole numbers do not depend on the order in which images come.
_UNIT = 2.0**-20

# Rows that come between two cuts of the classes' lists.
_BETWEEN_CUTS = 200_000


@dataclass(frozen=True)
class Choice:
    """An image that was chosen. class_name: for which class. share: what that class has of the image, 0 to 1."""

    uri: str
    class_name: str
    share: float
    doubt: float


class Candidates:
    """Keeps, for each class, the `count` images with the highest share of it / doubt.

    They do not depend on the order in which images come. Memory holds at most K * count rows and `_BETWEEN_CUTS` more.
    """

    def __init__(self, num_classes: int, count: int) -> None:
        self.num_images = 0
        self.areas = np.zeros(num_classes, np.int64)
        self._count = count
        self._cut = _listed(RECORDS.empty_table())
        self._new: list[pa.Table] = []

    def add(self, records: pa.Table) -> None:
        """Show it some records."""
        self.num_images += records.num_rows
        listed = _listed(records)
        np.add.at(self.areas, listed["class"].to_numpy(), np.rint(listed["share"].to_numpy() / _UNIT).astype(np.int64))
        self._new.append(listed)
        if sum(each.num_rows for each in self._new) > _BETWEEN_CUTS:
            self.table()

    def table(self) -> pa.Table:
        """A row for each class and image that is kept: class by class, the highest score first."""
        keys = [("class", "ascending"), ("score", "descending"), ("uri", "ascending")]
        rows = pa.concat_tables([self._cut, *self._new]).sort_by(keys)
        classes = rows["class"].to_numpy()
        rank = np.arange(len(classes)) - np.searchsorted(classes, classes)
        self._cut, self._new = rows.filter(pa.array(rank < self._count)), []
        return self._cut


def choose(candidates: Candidates, class_names: tuple[str, ...]) -> Iterator[Choice]:
    """The images of the candidates, one after the other.

    The classes take turns, the one with the smallest area in the corpus first. In its turn a class takes the image with
    the highest share of it / doubt that is not chosen yet. Images whose masks show no class are never chosen.
    """
    lists: dict[int, list[dict]] = {}
    for row in reversed(candidates.table().to_pylist()):
        lists.setdefault(row["class"], []).append(row)
    chosen: set[str] = set()
    turns = sorted(lists, key=lambda index: (candidates.areas[index], index))
    while turns:
        for index in turns:
            left = lists[index]
            while left and left[-1]["uri"] in chosen:
                left.pop()
            if left:
                row = left.pop()
                chosen.add(row["uri"])
                yield Choice(row["uri"], class_names[index], row["share"], row["doubt"])
        turns = [index for index in turns if lists[index]]


def _listed(records: pa.Table) -> pa.Table:
    """A row for each image and class that it shows."""
    parents = pc.list_parent_indices(records["classes"].combine_chunks())
    share = pc.list_flatten(records["shares"]).cast(pa.float64())
    doubt = records["doubt"].take(parents).cast(pa.float64())
    return pa.table(
        {
            "class": pc.list_flatten(records["classes"]),
            "score": pc.divide(share, pc.add(doubt, _LEAST_DOUBT)),
            "uri": records["uri"].take(parents),
            "doubt": doubt,
            "share": share,
        }
    )
