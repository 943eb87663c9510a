"""Which class a label value means: by index, by name, or by a map that somebody wrote. Nothing is guessed."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxyclip.evaluation.labels.coding import Coding
from proxyclip.vocabulary.checks import key
from proxyclip.vocabulary.names import Vocabulary, ignore_label


@dataclass(frozen=True)
class Matching:
    """How labels are read, and what of them has no counterpart.

    rule: how values became classes, in words. scored: the classes that labels can have, in order; figures are means
    over these. unmatched_labels: for each value whose name is no class, the name; its pixels are not scored.
    unmatched_classes: classes that no label has; predicting one is wrong for the true class. hints: for some of both.
    """

    rule: str
    coding: Coding
    scored: tuple[int, ...]
    unmatched_labels: Mapping[int, str] = field(default_factory=dict)
    unmatched_classes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()


def matching_of(
    vocabulary: Vocabulary, *, map_file: str | None, names: str | None, ignore: int | None, reduce_zero_label: bool
) -> Matching:
    """What the values of labels mean, as a user says it: by a map, else by names, else by index.

    map_file: path of a map. names: bundled name or file of the vocabulary whose indices the values are.
    """
    if map_file is not None:
        return by_map(vocabulary, map_file, ignore)
    if names is not None:
        return by_names(vocabulary, Vocabulary.load(names), ignore, reduce_zero_label=reduce_zero_label)
    return by_index(vocabulary, ignore, reduce_zero_label=reduce_zero_label)


def by_index(vocabulary: Vocabulary, ignore: int | None, *, reduce_zero_label: bool = False) -> Matching:
    """Label values are the vocabulary's indices; with `reduce_zero_label`, one more, and 0 is ignored."""
    coding, rule = _indices(vocabulary.num_classes, ignore, reduce_zero_label)
    scored = tuple(sorted(set(coding.classes.values())))
    return Matching(f"indices of the vocabulary{rule}", coding, scored, {}, _others(vocabulary, scored))


def by_names(
    vocabulary: Vocabulary, names: Vocabulary, ignore: int | None, *, reduce_zero_label: bool = False
) -> Matching:
    """Label values are the indices of `names`; those whose name is a class's name are that class.

    Case and outer blanks do not matter. Synonyms do not match; where one would, a hint says so. Raises ValueError if
    no name matches.
    """
    coding, rule = _indices(names.num_classes, ignore, reduce_zero_label)
    of_name = {key(name): index for index, name in enumerate(vocabulary.class_names)}
    found = {index: of_name[key(name)] for index, name in enumerate(names.class_names) if key(name) in of_name}
    if not found:
        raise ValueError(
            f"None of the {names.num_classes} names of the labels ({_some(names.class_names)}) is a class of the "
            f"output ({_some(vocabulary.class_names)}). Give a --map from label values to classes."
        )
    values = {value: found[index] for value, index in coding.classes.items() if index in found}
    unmatched = {v: names.class_names[i] for v, i in coding.classes.items() if i not in found}
    scored = tuple(sorted(set(values.values())))
    ignored = (coding.ignored | unmatched.keys()) - values.keys()
    return Matching(
        f"names{rule}",
        Coding(values, frozenset(ignored), hint=coding.hint),
        scored,
        unmatched,
        _others(vocabulary, scored),
        _synonym_hints(vocabulary, unmatched),
    )


def by_map(vocabulary: Vocabulary, path: str, ignore: int | None) -> Matching:
    """Label values are those of a map file: see `read_map`. Raises ValueError for names that are no class."""
    entries = read_map(Path(path))
    of_name = {key(name): index for index, name in enumerate(vocabulary.class_names)}
    unknown = sorted({name for name in entries.values() if name is not None and key(name) not in of_name})
    if unknown:
        near = difflib.get_close_matches(key(unknown[0]), of_name, n=1)
        meant = f" Did you mean {vocabulary.class_names[of_name[near[0]]]!r}?" if near else ""
        raise ValueError(
            f"--map {path}: these are not classes of the output: {_some(unknown)}.{meant} Its classes: "
            f"{_some(vocabulary.class_names, 20)}."
        )
    values = {value: of_name[key(name)] for value, name in entries.items() if name is not None}
    if not values:
        raise ValueError(f"--map {path}: it maps no value to a class.")
    ignored = {value for value, name in entries.items() if name is None}
    void = ignore if ignore is not None else ignore_label(len(entries))
    if ignore in values:
        raise ValueError(f"--ignore is {ignore}, but --map {path} gives this value a class.")
    ignored |= {void} - values.keys()
    scored = tuple(sorted(set(values.values())))
    coding = Coding(values, frozenset(ignored), hint="The map does not name them.")
    return Matching("map", coding, scored, {}, _others(vocabulary, scored))


def read_map(path: Path) -> dict[int, str | None]:
    """A map from label values to class names; None: ignore.

    JSON: {"0": "road", "255": null}. Otherwise text with one "VALUE: NAME" a line; without a name: ignore. Empty
    lines and lines that start with "#" do not count. Raises ValueError that says where the file is wrong.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--map {path}: the file cannot be read as text: {error}") from error
    entries: dict[int, str | None] = {}
    for place, value, name in _json_entries(path, text) if path.suffix.lower() == ".json" else _lines(path, text):
        if not re.fullmatch(r"\d{1,5}", value, re.ASCII) or int(value) > 65535:
            raise ValueError(f"{place}: {value!r} is no label value; give a number from 0 to 65535.")
        if int(value) in entries:
            raise ValueError(f"{place}: value {value} is there twice; keep one.")
        entries[int(value)] = name
    return entries


def _json_entries(path: Path, text: str) -> list[tuple[str, str, str | None]]:
    def pairs(items: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        return items  # keeps a value that is there twice

    try:
        found = json.loads(text, object_pairs_hook=pairs)
    except ValueError as error:
        raise ValueError(f"--map {path}: the file is not JSON: {error}") from error
    if not isinstance(found, list) or not all(isinstance(entry, tuple) for entry in found):
        raise ValueError(f'--map {path}: give one object, such as {{"0": "road", "255": null}}.')
    for value, name in found:
        if name is not None and not isinstance(name, str):
            raise ValueError(f"--map {path}, {value!r}: {name!r} is no name; give a class name, or null to ignore.")
    return [(f"--map {path}", value, name) for value, name in found]


def _lines(path: Path, text: str) -> list[tuple[str, str, str | None]]:
    entries: list[tuple[str, str, str | None]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            value, colon, name = line.partition(":")
            if not colon:
                raise ValueError(f'--map {path}, line {number}: write "VALUE: NAME".')
            entries.append((f"--map {path}, line {number}", value.strip(), name.strip() or None))
    return entries


def _indices(count: int, ignore: int | None, reduce_zero_label: bool) -> tuple[Coding, str]:
    void = ignore_label(count) if ignore is None else ignore
    if reduce_zero_label:
        coding = Coding.from_one(count, {void}, hint=f"With --reduce-zero-label, classes are 1 to {count}.")
    else:
        coding = Coding.indices(count, {void}, hint=f"Classes are 0 to {count - 1}, and {void} is ignored.")
    if ignore is not None and ignore in coding.classes:
        coding = Coding({v: i for v, i in coding.classes.items() if v != ignore}, coding.ignored, hint=coding.hint)
    return coding, ", less one (0 is ignored)" if reduce_zero_label else ""


def _others(vocabulary: Vocabulary, scored: tuple[int, ...]) -> tuple[str, ...]:
    return tuple(name for index, name in enumerate(vocabulary.class_names) if index not in set(scored))


def _synonym_hints(vocabulary: Vocabulary, unmatched: Mapping[int, str]) -> tuple[str, ...]:
    owners: dict[str, set[str]] = {}
    for name, queries in zip(vocabulary.class_names, vocabulary.class_queries, strict=True):
        for query in queries:
            owners.setdefault(key(query), set()).add(name)
    return tuple(
        f'{value} "{name}" is a synonym of "{" and ".join(sorted(owners[key(name)]))}"; a --map can say so.'
        for value, name in unmatched.items()
        if key(name) in owners
    )


def _some(names: tuple[str, ...] | list[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
