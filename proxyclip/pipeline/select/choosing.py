"""The choice: from the records of a corpus of any size to the images that a person should look at."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from proxyclip.pipeline.select.records import Floats, places, shares, values

# Images that are compared with each other. Records of so many (twice, while more come) are all that memory holds: with
# E = 512 about 2 KB each, 40 MB. Half of them are those most in doubt and half are drawn by chance; besides, for each
# class, those that show most of it.
CANDIDATES = 10_000
_OF_CLASS = 4

# A class that has less of an image is not seen there.
VISIBLE = 0.05

# Exponent of the doubt beside the distance to what is chosen already.
DOUBT = 1.0


@dataclass(frozen=True)
class Choice:
    """An image that was chosen. score: what it was chosen by. reason: in words."""

    uri: str
    score: float
    uncertainty: float
    disagreement: float | None
    distance: float
    reason: str


class Candidates:
    """Keeps some of the images that it is shown. Which ones does not depend on the order in which they come."""

    def __init__(self, num_classes: int, seed: int, limit: int = CANDIDATES) -> None:
        self.num_images = 0
        self.class_images = np.zeros(num_classes, np.int64)
        self._num_classes, self._seed, self._limit = num_classes, seed, limit
        self._tables: list[pa.Table] = []
        self._size = 0

    def add(self, table: pa.Table) -> None:
        """Show it some records."""
        if not table.num_rows:
            return
        self.num_images += table.num_rows
        self.class_images += (shares(table, self._num_classes) >= VISIBLE).sum(axis=0)
        self._tables.append(self._kept(table))
        self._size += self._tables[-1].num_rows
        if self._size > 2 * self._limit:
            self._tables = [self.table()]
            self._size = self._tables[0].num_rows

    def table(self) -> pa.Table:
        """The records that are kept, in an order that follows from the seed."""
        return self._kept(pa.concat_tables(self._tables))

    def _kept(self, table: pa.Table) -> pa.Table:
        numbers = np.array([_number(self._seed, uri) for uri in table["uri"].to_pylist()], np.uint64)
        order = np.argsort(numbers, kind="stable")
        table = table.take(pa.array(order))
        half = -(-self._limit // 2)
        kept = np.zeros(table.num_rows, bool)
        kept[:half] = True
        kept[np.argsort(-values(table), kind="stable")[:half]] = True
        if table.num_rows > half:
            of_class = shares(table, self._num_classes)
            for index in np.flatnonzero(of_class.any(axis=0)):
                most = np.argsort(-of_class[:, index], kind="stable")[:_OF_CLASS]
                kept[most[of_class[most, index] > 0]] = True
        return table.filter(pa.array(kept))


def choose(candidates: Candidates, class_names: tuple[str, ...], count: int) -> Iterator[Choice]:
    """Choose at most `count` images, one after the other.

    First, every class that fills `VISIBLE` of an image somewhere, the rarest first, unless a chosen image shows it
    already: of the images that show it the one with the highest doubt x share. Then always the one with the highest
    doubt x distance to the nearest chosen image. Distances are 1 less the cosine of the places.
    """
    table = candidates.table()
    doubt, where = values(table), places(table, len(class_names))
    of_class = shares(table, len(class_names))
    distance = np.ones(len(doubt))
    left = np.ones(len(doubt), bool)
    seen = np.zeros(len(class_names), bool)
    occur = np.flatnonzero(candidates.class_images)
    rarest = iter(occur[np.argsort(candidates.class_images[occur], kind="stable")])
    uris, uncertainty = table["uri"].to_pylist(), table["uncertainty"].to_pylist()
    disagreement = table["disagreement"].to_pylist()
    for _ in range(min(count, len(doubt))):
        missing = next((index for index in rarest if not seen[index]), None)
        score = _scores(doubt, distance) if missing is None else (doubt + 1e-6) * of_class[:, missing]
        best = int(np.argmax(np.where(left, score, -1)))
        reason = "doubt and distance" if missing is None else f"shows {class_names[missing]}"
        yield Choice(
            uris[best], float(score[best]), uncertainty[best], disagreement[best], float(distance[best]), reason
        )
        left[best] = False
        seen |= of_class[best] >= VISIBLE
        distance = np.minimum(distance, np.maximum(1 - where @ where[best], 0))


def _scores(doubt: Floats, distance: Floats) -> Floats:
    return (doubt + 1e-6) ** DOUBT * (distance + 1e-6)


def _number(seed: int, uri: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{uri}".encode(), digest_size=8).digest(), "big")
