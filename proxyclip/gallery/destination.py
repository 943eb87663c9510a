"""Where a gallery is written: a folder of its own, with the pages' files and the data that they show."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from importlib import resources
from typing import Any

from proxyclip.dataset.layout import COMMITS_FOLDER, FEATURES_FOLDER, PLAN_FOLDER
from proxyclip.dataset.rows import ALL_KINDS
from proxyclip.storage.store import Storage, public_uri

FOLDER = "gallery"
MARKER = "gallery.json"
INDEX = "index.html"
_OURS = re.compile(r"(thumbnails/\d{5,}\.jpg|masks/\d{5,}\.js|data/\w+\.js)", re.ASCII)
_OUTPUT_FOLDERS = {PLAN_FOLDER, COMMITS_FOLDER, FEATURES_FOLDER, *ALL_KINDS, "preview"}


def thumbnail_key(number: int) -> str:
    """The key of the JPEG of an image."""
    return f"thumbnails/{number:05d}.jpg"


def mask_key(number: int) -> str:
    """The key of the masks of an image."""
    return f"masks/{number:05d}.js"


def data_key(name: str) -> str:
    """The key of other data."""
    return f"data/{name}.js"


def open_destination(output: Storage, images: Storage | None, to: str | None) -> Storage:
    """The folder to write to. Raises ValueError if it holds something else, or must not hold a gallery.

    images: the folder that is searched for images, if there is one.
    """
    destination = Storage(to or f"{output.uri}/{FOLDER}")
    shown = public_uri(destination.uri)
    inside = _below(output, destination)
    if inside is not None and (not inside or inside.split("/")[0] in _OUTPUT_FOLDERS):
        raise ValueError(
            f"--to {shown} belongs to the output itself; give another folder, for instance {FOLDER}/ in it."
        )
    if inside is None and images is not None and _below(images, destination) is not None:
        raise ValueError(
            f"--to {shown} is in the input {public_uri(images.uri)}, so the next run would label the thumbnails; give "
            "a folder outside it."
        )
    source = public_uri(output.uri)
    if destination.exists(MARKER):
        found = _source(destination)
        if found != source:
            raise ValueError(f"--to {shown} holds the gallery of {found}, not of {source}; give another folder.")
    elif (first := next(iter(destination.list()), None)) is not None:
        raise ValueError(f"--to {shown} holds something else ({first.key}); give an empty folder or a gallery's.")
    destination.write(MARKER, json.dumps({"kind": "gallery", "source": source}, ensure_ascii=False).encode())
    return destination


def assets() -> Iterator[tuple[str, bytes]]:
    """The files of the pages: key and content."""
    folder = resources.files("proxyclip.gallery").joinpath("assets")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        yield (file.name if file.name == INDEX else f"assets/{file.name}"), file.read_bytes()


def script(function: str, *values: Any) -> bytes:
    """A script that hands plain values to a function of the pages.

    Pages that are opened from a disk may load scripts, but no other data.
    """
    arguments = ",".join(json.dumps(value, separators=(",", ":")) for value in values)  # ASCII, so it needs no charset
    return f"{function}({arguments});\n".encode()


def remove_others(destination: Storage, written: Collection[str]) -> None:
    """Remove what an earlier gallery left there."""
    for entry in destination.list():
        if entry.key not in written and _OURS.fullmatch(entry.key):
            destination.delete(entry.key)


def _source(destination: Storage) -> str:
    try:
        return str(json.loads(destination.read(MARKER))["source"])
    except (ValueError, KeyError, TypeError):
        return f"something else (its {MARKER} is none of a gallery)"


def _below(folder: Storage, place: Storage) -> str | None:
    """The path of a place relative to a folder: "" for the folder itself, None if it is not inside."""
    one, other = (str(each.local.resolve()) if each.local else each.uri for each in (folder, place))
    if one == other:
        return ""
    root = one.rstrip("/") + "/"
    return other[len(root) :] if other.startswith(root) else None
