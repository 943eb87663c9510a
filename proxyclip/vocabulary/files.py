"""Vocabularies as people write them down: text, JSON, YAML, embeddings in safetensors, and the bundled ones."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from proxyclip.vocabulary.checks import VocabularyError, check_text, shown

_VOCABULARY_KEYS = ("name", "classes", "background", "palette")
_CLASS_KEYS = ("name", "queries", "synonyms", "color")


@cache
def bundled() -> dict[str, Any]:
    """The benchmarks' vocabularies by name, as parsed JSON."""
    return json.loads((resources.files("proxyclip.vocabulary") / "vocabularies.json").read_text(encoding="utf-8"))


def read_utf8(path: Path) -> str:
    """A text file, with or without a BOM, its line ends as they are."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise VocabularyError(f"cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise VocabularyError(f"is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error


def split_classes(text: str) -> list[list[str]]:
    """One class per line, its names apart by ";"; empty lines at the end and one ";" per line end do not count."""
    classes = []
    for number, line in enumerate(re.split("\r\n|\r|\n", text.removeprefix("\ufeff").rstrip()), start=1):
        names = [name.strip() for name in line.strip().removesuffix(";").split(";")]
        if not all(names):
            found = "is empty" if names == [""] else f'("{line.strip()}") has an empty name'
            raise VocabularyError(f"line {number} {found}; name it or remove it (lines are mask values, in order).")
        classes.append(names)
    return classes


def parse(path: Path) -> Any:
    """The values of a .json, .yaml or .yml file."""
    suffix = path.suffix.lower()
    if suffix not in (".json", ".yaml", ".yml"):
        raise VocabularyError(f'has the suffix "{suffix}"; a vocabulary is .txt, .json, .yaml or .yml.')
    text = read_utf8(path)
    if suffix == ".json":
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise VocabularyError(f"is not JSON: {error}.") from error
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise VocabularyError(f"is not YAML: {error}") from error


def read_fields(data: Any, name: str) -> dict[str, Any]:
    """The fields of a Vocabulary from parsed JSON or YAML; `name` where the data holds none."""
    if isinstance(data, list):
        data = {"classes": data}
    if not isinstance(data, Mapping) or not isinstance(data.get("classes"), list):
        raise VocabularyError(
            f'a vocabulary is a list of classes, or a mapping with that list as "classes"; found {shown(data)}.'
        )
    _check_keys(data, _VOCABULARY_KEYS, "the vocabulary")
    rows = [_read_class(entry, index) for index, entry in enumerate(data["classes"])]
    palette = data.get("palette")
    colours = [colour for _, _, colour in rows if colour is not None]
    if colours:
        if palette is not None:
            raise VocabularyError('the vocabulary has both "palette" and classes with "color"; keep one.')
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


def _read_class(entry: Any, index: int) -> tuple[str, tuple[str, ...], Any]:
    """Label, queries and colour of one entry of "classes"."""
    where = f"class {index}"
    if isinstance(entry, (list, tuple)):
        if not entry:
            raise VocabularyError(f"{where} is an empty list; name it or remove it.")
        return entry[0], tuple(entry), None
    if not isinstance(entry, Mapping):
        check_text(entry, where)
        return entry, (entry,), None
    _check_keys(entry, _CLASS_KEYS, where)
    if "name" not in entry:
        raise VocabularyError(f'{where} ({shown(dict(entry))}) has no "name"; add it.')
    label, queries, synonyms = entry["name"], entry.get("queries"), entry.get("synonyms")
    if queries is not None and synonyms is not None:
        raise VocabularyError(
            f'{where} ("{label}") has both "queries" and "synonyms"; keep "queries" (exactly these) '
            'or "synonyms" (the name and these).'
        )
    for key, names in (("queries", queries), ("synonyms", synonyms)):
        if names is not None and not isinstance(names, (list, tuple)):
            raise VocabularyError(f'"{key}" of {where} ("{label}") is {shown(names)}; give a list of names.')
    return label, tuple(queries) if queries is not None else (label, *(synonyms or ())), entry.get("color")


def _check_keys(mapping: Mapping[Any, Any], known: Sequence[str], where: str) -> None:
    for key in mapping:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            meant = f'; did you mean "{close[0]}"?' if close else "."
            raise VocabularyError(f'{where} has the unknown key "{key}"{meant} Known: {", ".join(known)}.')


def read_embeddings(path: Path) -> npt.NDArray[np.floating]:
    """The only tensor of a safetensors file, or the one named "embeddings"."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            if len(names) != 1 and "embeddings" not in names:
                raise VocabularyError(
                    f'holds the tensors {shown(names)}; it should hold one, or one named "embeddings".'
                )
            return file.get_tensor("embeddings" if "embeddings" in names else names[0])
    except (OSError, SafetensorError, TypeError) as error:  # TypeError: a type that numpy lacks, such as bfloat16
        raise VocabularyError(f"cannot be read as safetensors ({error}); save float32 with save_file.") from error
