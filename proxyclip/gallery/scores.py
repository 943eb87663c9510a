"""The scores of an evaluation: its file, read for a page of the gallery."""

from __future__ import annotations

import json
from typing import Any

from proxyclip.storage.store import Storage, public_uri

FILE = "evaluation.json"
SHOWN_WORST = 100
_FIGURES = ("miou", "aacc", "macc", "boundary_iou")


def read_scores(place: str) -> dict[str, Any]:
    """What `proxyclip evaluate` wrote: a file, or the folder that holds it. Raises ValueError if it is none."""
    folder, _, name = place.rstrip("/").rpartition("/")
    storage, key = (Storage(folder or "."), name) if name.endswith(".json") else (Storage(place), FILE)
    shown = f"{public_uri(storage.uri)}/{key}"
    try:
        data = storage.read(key)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"--evaluation {shown}: no such file; give what `proxyclip evaluate` wrote.") from error
    try:
        found = json.loads(data)
        return {
            **{name: _number(found.get(name)) for name in _FIGURES},
            "num_images": int(found["num_images"]),
            "classes": [_class(each) for each in found["classes"]],
            "confusion": _confusion(found.get("confusion"), len(found["classes"])),
            "worst": [_image(each) for each in found["worst"][:SHOWN_WORST]],
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"--evaluation {shown} is not what `proxyclip evaluate` writes ({type(error).__name__}: {error})."
        ) from error


def _class(found: dict[str, Any]) -> dict[str, Any]:
    figures = {name: _number(found.get(name)) for name in ("iou", "accuracy", "boundary_iou")}
    return {"name": str(found["name"]), **figures, "pixels": int(found.get("pixels") or 0)}


def _image(found: dict[str, Any]) -> dict[str, Any]:
    return {"uri": str(found["uri"]), "miou": _number(found["miou"]), "accuracy": _number(found.get("accuracy"))}


def _confusion(found: list[list[int]] | None, num_classes: int) -> list[list[int]] | None:
    if found is None:
        return None
    rows = [[int(count) for count in row] for row in found]
    if len(rows) != num_classes or any(len(row) != num_classes + 1 for row in rows):
        raise ValueError(f"confusion is not {num_classes} rows of {num_classes + 1} counts")
    return rows


def _number(value: float | None) -> float | None:
    """A figure; None for NaN."""
    return None if value is None or value != value else float(value)
