"""What a vocabulary must be, and errors that say where it is not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# Control characters, line breaks and lone surrogates.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class VocabularyError(ValueError):
    """A vocabulary that cannot be used: where, what is wrong, and what to do about it.

    place: "vocabulary.txt, line 7", "class 3", or "" for the vocabulary as a whole.
    """

    def __init__(self, problem: str, place: str = "") -> None:
        super().__init__(problem, place)
        self.problem, self.place = problem, place

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}" if self.place else self.problem


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Put the name of the file in front of what is wrong in it."""
    try:
        yield
    except VocabularyError as error:
        place = f"{path}, {error.place}" if error.place else str(path)
        raise VocabularyError(error.problem, place) from error


def class_place(index: int) -> str:
    """Where a class is, if it does not come from a text file."""
    return f"class {index}"


def line_place(index: int) -> str:
    """Where a class is in a text file, which has one class per line."""
    return f"line {index + 1}"


def key(name: str) -> str:
    """Names with the same key count as the same name: case and outer blanks do not matter."""
    return name.strip().casefold()


def shown(value: object) -> str:
    """A value for an error message, in at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_text(value: object, what: str, place: str = "") -> None:
    """Refuse what is not text, blank, or not printable on one line."""
    if not isinstance(value, str):
        raise VocabularyError(f"{what} is {value!r} ({type(value).__name__}); names are text: put it in quotes.", place)
    if not value.strip():
        raise VocabularyError(f"{what} is empty; write a name or remove it.", place)
    if found := _UNPRINTABLE.search(value):
        raise VocabularyError(
            f"{what} {shown(value)} contains the character {found.group()!r} at position {found.start()}; remove it "
            "(names have no tabs, line breaks or control characters).",
            place,
        )


def check_classes(
    names: Sequence[str], queries: Sequence[Sequence[str]], place_of: Callable[[int], str] = class_place
) -> None:
    """Refuse bad and repeated names, and bad or repeated queries within a class; `place_of` says where a class is."""
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        check_text(name, "the name", place_of(index))
        first = seen.setdefault(key(name), index)
        if first != index:
            other, place = class_place(first), place_of(first)
            raise VocabularyError(
                f'"{name}" is also the name of {other if place == other else f"{other} ({place})"}; '
                "rename one or make it a synonym.",
                place_of(index),
            )
    for index, (name, of_class) in enumerate(zip(names, queries, strict=True)):
        _check_queries(of_class, name, place_of(index))


def _check_queries(queries: Sequence[str], name: str, place: str) -> None:
    """Refuse bad queries, none, and the same one twice: each takes its share of the softmax."""
    if isinstance(queries, str):
        raise VocabularyError(f'the queries of "{name}" are the text {queries!r}; give a list.', place)
    if not len(queries):
        raise VocabularyError(f'"{name}" has no queries; give one or more.', place)
    seen: set[str] = set()
    for position, query in enumerate(queries):
        check_text(query, f'query {position} of "{name}"', place)
        if key(query) in seen:
            raise VocabularyError(f'"{name}" has the query "{query}" more than once; remove the repetitions.', place)
        seen.add(key(query))


def checked_background(background: object, names: Sequence[str]) -> int | None:
    """The index of the background, given by name or index."""
    if background is None:
        return None
    if isinstance(background, str):
        matches = [index for index, name in enumerate(names) if key(name) == key(background)]
        if not matches:
            raise VocabularyError(f'the background "{background}" is not a class; give the name of a class, or none.')
        return matches[0]
    if isinstance(background, bool) or not isinstance(background, (int, np.integer)):
        raise VocabularyError(f"the background is {background!r}; give the name or the index of a class, or none.")
    if not 0 <= background < len(names):
        raise VocabularyError(
            f"the background is class {background}, but the classes are 0 to {len(names) - 1}; "
            "give one of them, or none."
        )
    return int(background)


def checked_palette(palette: Any, num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """The palette as whole numbers 0..255, three for each class."""
    try:
        colours = np.asarray(palette)
    except ValueError:  # rows of different lengths
        colours = np.empty(0)
    if colours.shape != (num_classes, 3):
        raise VocabularyError(
            f"the palette is {shown(palette)}; give a list of {num_classes} colours [red, green, blue], one per class."
        )
    if colours.dtype.kind not in "iu" or colours.min() < 0 or colours.max() > 255:
        raise VocabularyError(f"the palette is {shown(palette)}; colours are whole numbers from 0 to 255.")
    return tuple((int(red), int(green), int(blue)) for red, green, blue in colours)


def unit_rows(embeddings: Any, num_queries: int) -> npt.NDArray[np.float32]:
    """(Q, D) float32 rows of unit length, read-only. Rows that already have unit length do not change by a bit."""
    rows = np.asarray(embeddings)
    if rows.ndim != 2 or rows.dtype.kind != "f":
        raise VocabularyError(
            f"the embeddings have shape {rows.shape} and type {rows.dtype}; "
            "give an array of floating-point numbers with shape (queries, dimensions)."
        )
    if len(rows) != num_queries:
        raise VocabularyError(
            f"there are {len(rows)} embeddings for {num_queries} queries; "
            "give one row per query, in the order of the queries."
        )
    rows = rows.astype(np.float32)
    norms = np.sqrt(np.einsum("qd,qd->q", rows, rows, dtype=np.float64))
    bad = np.flatnonzero(~np.isfinite(norms) | (norms < 1e-12))
    if len(bad):
        raise VocabularyError(
            f"{len(bad)} embeddings are zero or not finite, the first for query {bad[0]}; compute them again."
        )
    # Rows of unit length must not change when they are written and read again. The sum above may differ in its last
    # bits between machines; rounding the norm to float32 before the division removes that difference.
    norms[np.abs(norms - 1) < 1e-6] = 1
    rows = rows / norms.astype(np.float32)[:, None]
    rows.setflags(write=False)
    return rows
