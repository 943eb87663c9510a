"""What a vocabulary must fulfil, and the errors that say where it does not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # control, line breaks, lone surrogates


class VocabularyError(ValueError):
    """A vocabulary that cannot be used: what is wrong, where, and what to do about it."""


def key(name: str) -> str:
    """What makes two names the same: all but case and outer blanks."""
    return name.strip().casefold()


def shown(value: object) -> str:
    """A value for an error message, in at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_text(value: object, where: str) -> None:
    """Refuse what is not text, blank, or not printable on one line."""
    if not isinstance(value, str):
        raise VocabularyError(f"{where} is {value!r} ({type(value).__name__}); names are text: put it in quotes.")
    if not value.strip():
        raise VocabularyError(f"{where} is empty; name it or remove it.")
    if found := _UNPRINTABLE.search(value):
        raise VocabularyError(
            f"{where}, {value!r}, holds the character {found.group()!r} at {found.start()}; "
            "a name is one line without tabs and control characters: remove it."
        )


def check_class_names(names: Sequence[str]) -> None:
    """Refuse bad labels and labels that are the same but for case and outer blanks."""
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        check_text(name, f"the name of class {index}")
        first = seen.setdefault(key(name), index)
        if first != index:
            raise VocabularyError(
                f'classes {first} ("{names[first]}") and {index} ("{name}") have the same name; '
                "give them different names or make one a synonym."
            )


def check_queries(queries: Sequence[str], where: str) -> None:
    """Refuse bad queries, none, and the same one twice: each takes its share of the softmax."""
    if isinstance(queries, str) or not len(queries):
        raise VocabularyError(f"the queries of {where} are {queries!r}; give a list of one or more.")
    for position, query in enumerate(queries):
        check_text(query, f"query {position} of {where}")
    if len({key(query) for query in queries}) < len(queries):
        keys = [key(query) for query in queries]
        twice = next(query for query, key in zip(queries, keys, strict=True) if keys.count(key) > 1)
        raise VocabularyError(f'{where} has the query "{twice}" more than once; remove the repetitions.')


def checked_background(background: object, names: Sequence[str]) -> int | None:
    """The index of the background, given by name or index."""
    if background is None:
        return None
    if isinstance(background, str):
        matches = [index for index, name in enumerate(names) if key(name) == key(background)]
        if not matches:
            raise VocabularyError(f'the background "{background}" is not a class; name one of the classes, or none.')
        return matches[0]
    if isinstance(background, bool) or not isinstance(background, (int, np.integer)):
        raise VocabularyError(f"the background is {background!r}; give the name or the index of a class, or none.")
    if not 0 <= background < len(names):
        raise VocabularyError(f"the background is class {background}; classes are 0..{len(names) - 1}.")
    return int(background)


def checked_palette(palette: Any, num_classes: int) -> tuple[tuple[int, int, int], ...]:
    """The palette as whole numbers 0..255, three for each class."""
    try:
        colours = np.asarray(palette)
    except ValueError:  # rows of different lengths
        colours = np.empty(0)
    if colours.shape != (num_classes, 3):
        raise VocabularyError(
            f"the palette is not {num_classes} colours of [red, green, blue]; found {shown(palette)}: one per class."
        )
    if colours.dtype.kind not in "iu" or colours.min() < 0 or colours.max() > 255:
        raise VocabularyError(f"the palette holds other values than whole numbers 0..255; found {shown(palette)}.")
    return tuple((int(red), int(green), int(blue)) for red, green, blue in colours)


def unit_rows(embeddings: Any, num_queries: int) -> npt.NDArray[np.float32]:
    """(Q, D) float32 rows of unit length, read-only. Rows that have it already stay as they are, to the bit."""
    rows = np.asarray(embeddings)
    if rows.ndim != 2 or rows.dtype.kind != "f":
        raise VocabularyError(
            f"the embeddings have shape {rows.shape} and type {rows.dtype}; give (queries, dimensions), floating point."
        )
    if len(rows) != num_queries:
        raise VocabularyError(
            f"{len(rows)} embeddings for {num_queries} queries; give one row per query, in the order of the queries."
        )
    rows = rows.astype(np.float32)
    norms = np.sqrt(np.einsum("qd,qd->q", rows, rows, dtype=np.float64))
    bad = np.flatnonzero(~np.isfinite(norms) | (norms < 1e-12))
    if len(bad):
        raise VocabularyError(
            f"{len(bad)} embeddings are zero or not finite, the first for query {bad[0]}; compute them again."
        )
    # Rows of unit length stay as they are, so that reading what was written changes nothing. The norm is rounded
    # to float32 before the division: the order of the sum above, another on another machine, leaves no trace.
    norms[np.abs(norms - 1) < 1e-6] = 1
    rows = rows / norms.astype(np.float32)[:, None]
    rows.setflags(write=False)
    return rows
