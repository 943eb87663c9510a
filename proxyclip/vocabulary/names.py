"""Vocabulary: the classes of a mask and the queries that find them.

A class has a label and one or more queries. Its index, counted from 0, is its value in the masks; errors count
classes and queries the same way, and only the lines of a text file from 1. Queries go to the text tower as written.
A class scores as its strongest query does; of classes with equal scores, the one with the lowest index wins.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from proxyclip.vocabulary import checks, files
from proxyclip.vocabulary.checks import VocabularyError
from proxyclip.vocabulary.palette import default_palette

MAX_CLASSES = 65_535  # a 16-bit mask has the values 0..65534 for classes; 65535 is ignore


@dataclass(frozen=True, eq=False, repr=False)
class Vocabulary:
    """K classes and their Q queries; the queries of one class are contiguous.

    class_names: K different labels; case and outer blanks do not make a difference.
    class_queries: one or more queries for each class. Two classes may share a query (published lists do):
        see `shared_queries`.
    background: the class of pixels that no other class claims, or None.
    palette: K colours (red, green, blue), 0..255, or None for the default palette.
    embeddings: (Q, D) text embeddings used instead of a text tower, one row per query; scaled to unit length.
    Raises VocabularyError if any of this does not hold.
    """

    name: str
    class_names: tuple[str, ...]
    class_queries: tuple[tuple[str, ...], ...]
    background: int | None = None
    palette: tuple[tuple[int, int, int], ...] | None = None
    embeddings: npt.NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        checks.check_text(self.name, "the name of the vocabulary")
        if not 1 <= len(self.class_names) <= MAX_CLASSES:
            raise VocabularyError(
                f"the vocabulary has {len(self.class_names)} classes; a vocabulary has 1 to {MAX_CLASSES} classes."
            )
        if len(self.class_queries) != len(self.class_names):
            raise VocabularyError(
                f"there are {len(self.class_names)} class names but {len(self.class_queries)} lists of queries; "
                "give one list per class."
            )
        checks.check_classes(self.class_names, self.class_queries)
        checked = {
            "class_names": tuple(self.class_names),
            "class_queries": tuple(tuple(queries) for queries in self.class_queries),
            "background": checks.checked_background(self.background, self.class_names),
            "palette": None if self.palette is None else checks.checked_palette(self.palette, self.num_classes),
            "embeddings": None if self.embeddings is None else checks.unit_rows(self.embeddings, self.num_queries),
        }
        for field, value in checked.items():
            object.__setattr__(self, field, value)

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def num_queries(self) -> int:
        """Q, at least K."""
        return sum(map(len, self.class_queries))

    @property
    def queries(self) -> tuple[str, ...]:
        """All Q queries, class after class."""
        return tuple(query for queries in self.class_queries for query in queries)

    @property
    def query_class(self) -> npt.NDArray[np.int64]:
        """(Q,) int64: the class of each query, ascending."""
        return np.repeat(np.arange(self.num_classes, dtype=np.int64), [len(queries) for queries in self.class_queries])

    @property
    def colours(self) -> npt.NDArray[np.uint8]:
        """(K, 3) uint8 RGB: the palette, or the default one."""
        return default_palette(self.num_classes) if self.palette is None else np.array(self.palette, dtype=np.uint8)

    @property
    def shared_queries(self) -> dict[str, tuple[int, ...]]:
        """Queries that belong to several classes, in lower case, with the indices of these classes.

        A shared query scores the same in each of its classes, unless the vocabulary brings its own embeddings.
        """
        owners: dict[str, list[int]] = {}
        for index, queries in enumerate(self.class_queries):
            for query in queries:
                owners.setdefault(checks.key(query), []).append(index)
        return {query: tuple(indices) for query, indices in owners.items() if len(indices) > 1}

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over all that can change a result: labels and queries in order, background, embeddings.

        The vocabulary's name and palette do not count. It is the same in every process and on every machine.
        """
        content = json.dumps([self.class_names, self.class_queries, self.background])
        digest = hashlib.sha256(content.encode())
        if self.embeddings is not None:
            digest.update(repr(self.embeddings.shape).encode())
            digest.update(self.embeddings.astype("<f4").tobytes())
        return digest.hexdigest()[:16]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return (self.name, self.palette, self.fingerprint) == (other.name, other.palette, other.fingerprint)

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        extras = "" if self.background is None else f", background {self.background}"
        extras += "" if self.embeddings is None else f", {self.embeddings.shape[1]}-d embeddings"
        return f"Vocabulary({self.name!r}, {self.num_classes} classes, {self.num_queries} queries{extras})"

    def to_json(self) -> dict[str, Any]:
        """The vocabulary as JSON values that `from_json` reads. Embeddings are not included."""
        classes = zip(self.class_names, self.class_queries, strict=True)
        return {
            "name": self.name,
            "background": self.background,
            "palette": None if self.palette is None else [list(colour) for colour in self.palette],
            "classes": [{"name": name, "queries": list(queries)} for name, queries in classes],
        }

    @classmethod
    def from_json(cls, data: Any, *, name: str = "custom") -> Vocabulary:
        """Read parsed JSON or YAML: {"name", "classes", "background", "palette"}, or the list of classes alone.

        A class is a name; or a list [name, synonym, ...]; or a mapping with a "name". In a mapping, "synonyms" are
        added to the name, "queries" replace it, and "color" is [r, g, b] (for all classes or none, instead of
        "palette"). "background" is the name or the index of a class.
        """
        return cls(**files.fields_of_json(data, name))

    @classmethod
    def from_names(
        cls, names: Iterable[str | Sequence[str]], *, name: str = "custom", background: str | int | None = None
    ) -> Vocabulary:
        """Classes from their names; a list is one class with synonyms: ["sky", ["horse", "pony"]]."""
        if isinstance(names, str):
            raise VocabularyError(f'from_names takes a list of names, not the text "{names}"; write ["{names}"].')
        return cls._of(files.classes_of_names(names), name, background)

    @classmethod
    def from_text(cls, text: str | Path, *, name: str = "custom", background: str | int | None = None) -> Vocabulary:
        """One class per line: its label, then its synonyms, separated by ";". A Path is read; a str is the text itself.

        Blanks around names, a ";" at the end of a line, a BOM, the kind of line ends and empty lines at the end do
        not matter.
        """
        if isinstance(text, Path):
            with checks.reading(text):
                return cls._of(files.classes_of_text(files.read_utf8(text)), name, background)
        if re.fullmatch(r"\s*\S+\.txt\s*", text):
            raise VocabularyError(f'from_text takes the text itself; to read the file "{text}", call from_file.')
        return cls._of(files.classes_of_text(text), name, background)

    @classmethod
    def _of(cls, classes: list[tuple[str, ...]], name: str, background: str | int | None) -> Vocabulary:
        """Classes whose first query is their label."""
        return cls(name, tuple(queries[0] for queries in classes), tuple(classes), background)  # type: ignore[arg-type]

    @classmethod
    def from_file(cls, path: str | Path, embeddings: str | Path | None = None) -> Vocabulary:
        """Read .txt (see `from_text`), .json or .yaml (see `from_json`), UTF-8; `embeddings`: see `with_embeddings`.

        If the file has no name for the vocabulary, the file's name without its suffix is used.
        """
        path = Path(path)
        if path.suffix.lower() == ".txt":
            vocabulary = cls.from_text(path, name=path.stem)
        else:
            with checks.reading(path):
                vocabulary = cls.from_json(files.parse(path), name=path.stem)
        return vocabulary if embeddings is None else vocabulary.with_embeddings(embeddings)

    @classmethod
    def from_name(cls, name: str) -> Vocabulary:
        """One of `bundled_names()`, the classes and queries of the published benchmarks."""
        if name not in bundled_names():
            raise VocabularyError(f'there is no bundled vocabulary "{name}".{_suggestion(name)}')
        return cls.from_json(files.bundled()[name], name=name)

    @classmethod
    def load(cls, spec: str | Path, embeddings: str | Path | None = None) -> Vocabulary:
        """A bundled vocabulary by its name, or else a file. Command lines use this."""
        if str(spec) in bundled_names():
            vocabulary = cls.from_name(str(spec))
            return vocabulary if embeddings is None else vocabulary.with_embeddings(embeddings)
        if not Path(spec).is_file():
            raise VocabularyError(f'"{spec}" is neither a bundled vocabulary nor a file.{_suggestion(str(spec))}')
        return cls.from_file(spec, embeddings)

    def with_embeddings(self, embeddings: str | Path | npt.NDArray[np.floating]) -> Vocabulary:
        """The same vocabulary with its own text embeddings, (Q, D) in the order of `queries`.

        embeddings: an array, or a .safetensors file with one tensor or with one named "embeddings".
        """
        if isinstance(embeddings, np.ndarray):
            return dataclasses.replace(self, embeddings=embeddings)
        with checks.reading(embeddings):
            return dataclasses.replace(self, embeddings=files.read_embeddings(Path(embeddings)))


def ignore_label(num_classes: int) -> int:
    """The mask value of pixels without a label: 255 for up to 255 classes (8-bit masks), else 65535 (16-bit)."""
    return 255 if num_classes <= 255 else 65535


def bundled_names() -> tuple[str, ...]:
    """The names that `Vocabulary.from_name` knows."""
    return tuple(files.bundled())


def _suggestion(name: str) -> str:
    close = difflib.get_close_matches(name.lower(), bundled_names(), n=3)
    meant = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"{meant} Bundled: {', '.join(bundled_names())}. Files end in .txt, .json or .yaml."
