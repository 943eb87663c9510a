"""Vocabularies as people write them: text, JSON, YAML, embeddings in safetensors, and the bundled ones."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from proxyclip.vocabulary.checks import VocabularyError, check_classes, check_text, class_place, line_place, shown

_VOCABULARY_KEYS = ("name", "classes", "background", "palette")
_CLASS_KEYS = ("name", "queries", "synonyms", "color")


@cache
def bundled() -> dict[str, Any]:
    """The benchmarks' vocabularies by name, as parsed JSON."""
    return json.loads((resources.files("proxyclip.vocabulary") / "vocabularies.json").read_text(encoding="utf-8"))


def read_utf8(path: Path) -> str:
    """A text file, with or without a BOM; its line ends stay as they are."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise VocabularyError(f"the file cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise VocabularyError(f"the file is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error


def classes_of_text(text: str) -> list[tuple[str, ...]]:
    """The names of each class: one class per line, names separated by ";".

    Empty lines at the end and one ";" at the end of a line do not count.
    """
    classes = []
    for index, line in enumerate(re.split("\r\n|\r|\n", text.removeprefix("\ufeff").rstrip())):
        names = tuple(name.strip() for name in line.strip().removesuffix(";").split(";"))
        if names == ("",):
            raise VocabularyError(
                "the line is empty; write a class there or remove the line (line numbers set mask values).",
                line_place(index),
            )
        if not all(names):
            raise VocabularyError(f'"{line.strip()}" has an empty name; write a name or remove it.', line_place(index))
        classes.append(names)
    check_classes([names[0] for names in classes], classes, line_place)
    return classes


def classes_of_names(names: Iterable[str | Sequence[str]]) -> list[tuple[str, ...]]:
    """The names of each class: a name alone, or a list of a name and its synonyms."""
    return [_names_of_class(entry, class_place(index)) for index, entry in enumerate(names)]


def _names_of_class(entry: Any, place: str) -> tuple[str, ...]:
    if isinstance(entry, (list, tuple)):
        if not entry:
            raise VocabularyError("the list is empty; write a name or remove it.", place)
        return tuple(entry)
    check_text(entry, "the name", place)
    return (entry,)


def parse(path: Path) -> Any:
    """The values of a .json, .yaml or .yml file."""
    suffix = path.suffix.lower()
    if suffix not in (".json", ".yaml", ".yml"):
        raise VocabularyError(f'a vocabulary file ends in .txt, .json, .yaml or .yml, not in "{suffix}"; rename it.')
    text = read_utf8(path)
    if suffix == ".json":
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            problem = f"the file is not valid JSON: {error.msg} (column {error.colno})."
            raise VocabularyError(problem, f"line {error.lineno}") from error
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise VocabularyError(f"the file is not valid YAML: {error}") from error


def fields_of_json(data: Any, name: str) -> dict[str, Any]:
    """The fields of a Vocabulary from parsed JSON or YAML; `name` is used if the data has none."""
    if isinstance(data, list):
        data = {"classes": data}
    if not isinstance(data, Mapping) or not isinstance(data.get("classes"), list):
        raise VocabularyError(
            f'a vocabulary is a list of classes, or a mapping with that list as "classes"; this is {shown(data)}.'
        )
    _check_keys(data, _VOCABULARY_KEYS, "")
    rows = [_read_class(entry, class_place(index)) for index, entry in enumerate(data["classes"])]
    palette = data.get("palette")
    colours = [colour for _, _, colour in rows if colour is not None]
    if colours:
        if palette is not None:
            raise VocabularyError('the vocabulary has a "palette" and also classes with a "color"; keep one of both.')
        if len(colours) != len(rows):
            raise VocabularyError(f'{len(colours)} of {len(rows)} classes have a "color"; give it to all or none.')
        palette = colours
    return {
        "name": name if data.get("name") is None else data["name"],
        "class_names": tuple(label for label, _, _ in rows),
        "class_queries": tuple(queries for _, queries, _ in rows),
        "background": data.get("background"),
        "palette": palette,
    }


def _read_class(entry: Any, place: str) -> tuple[str, tuple[str, ...], Any]:
    """Label, queries and colour of one entry of "classes"."""
    if not isinstance(entry, Mapping):
        names = _names_of_class(entry, place)
        return names[0], names, None
    _check_keys(entry, _CLASS_KEYS, place)
    if "name" not in entry:
        raise VocabularyError(f'{shown(dict(entry))} has no "name"; add it.', place)
    label, queries, synonyms = entry["name"], entry.get("queries"), entry.get("synonyms")
    if queries is not None and synonyms is not None:
        raise VocabularyError(
            f'"{label}" has both "queries" and "synonyms"; keep one of them. '
            '"synonyms" are added to the name; "queries" replace it.',
            place,
        )
    for key, value in (("queries", queries), ("synonyms", synonyms)):
        if value is not None and not isinstance(value, (list, tuple)):
            raise VocabularyError(f'"{key}" of "{label}" is {shown(value)}; give a list of names.', place)
    return label, tuple(queries) if queries is not None else (label, *(synonyms or ())), entry.get("color")


def _check_keys(mapping: Mapping[Any, Any], known: Sequence[str], place: str) -> None:
    for key in mapping:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            meant = f' Did you mean "{close[0]}"?' if close else ""
            raise VocabularyError(f'unknown key "{key}".{meant} Keys: {", ".join(known)}.', place)


def read_embeddings(path: Path) -> npt.NDArray[np.floating]:
    """The only tensor of a safetensors file, or the one named "embeddings"."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            if len(names) != 1 and "embeddings" not in names:
                raise VocabularyError(
                    f'the file has the tensors {shown(names)}; save a single tensor, or name one "embeddings".'
                )
            return file.get_tensor("embeddings" if "embeddings" in names else names[0])
    except (OSError, SafetensorError, TypeError) as error:  # TypeError: a type that numpy lacks, such as bfloat16
        raise VocabularyError(
            f"the file cannot be read as safetensors ({error}); save float32 with save_file."
        ) from error
