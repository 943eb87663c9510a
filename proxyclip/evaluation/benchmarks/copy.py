"""A user's copy of a benchmark: its images and labels, found and counted before work starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from proxyclip.evaluation.benchmarks.layouts import LabelForm, Layout
from proxyclip.evaluation.labels.files import LabelFiles
from proxyclip.storage.store import Storage, public_uri

_SHOWN = 3


@dataclass(frozen=True)
class BenchmarkCopy:
    """Where a benchmark lies. images: their folder. uris: those of the split, relative to it. form: of the labels."""

    layout: Layout
    images: str
    uris: tuple[str, ...]
    labels: LabelFiles
    form: LabelForm


def open_copy(layout: Layout, root: str) -> BenchmarkCopy:
    """Find the images of the split and their labels.

    Raises FileNotFoundError if any file is missing; it names some, and the step that makes them.
    """
    storage = Storage(root)
    split = None if layout.split is None else _read_split(storage, layout)
    present = {key for key in _below(storage, layout.images) if key.endswith(layout.image_suffix)}
    uris = sorted(present) if split is None else [f"{stem}{layout.image_suffix}" for stem in split]
    if not uris:
        _refuse(storage, layout, [f"{layout.images}/*{layout.image_suffix}"], layout.split_made_by)
    if lacking := [uri for uri in uris if uri not in present]:
        _refuse(storage, layout, [f"{layout.images}/{uri}" for uri in lacking], layout.split_made_by)
    missing: dict[str, list[str]] = {}
    for form in layout.forms:
        files = LabelFiles(_join(storage.uri, form.folder), form.suffix, layout.image_suffix)
        there = set(_below(storage, form.folder))
        lacking = [files.key(uri) for uri in uris if files.key(uri) not in there]
        if not lacking:
            return BenchmarkCopy(layout, _join(storage.uri, layout.images), tuple(uris), files, form)
        missing[form.made_by] = [f"{form.folder}/{key}" for key in lacking]
    made_by = min(missing, key=lambda step: len(missing[step]))  # of the first form, if none has any
    others = "".join(f" Or, instead: {step} ({keys[0]}, ...)." for step, keys in missing.items() if step != made_by)
    _refuse(storage, layout, missing[made_by], made_by, others)


def _read_split(storage: Storage, layout: Layout) -> list[str]:
    assert layout.split is not None
    try:
        text = storage.read(layout.split).decode()
    except FileNotFoundError:
        _refuse(storage, layout, [layout.split], layout.split_made_by)
    stems = list(dict.fromkeys(filter(None, map(str.strip, text.splitlines()))))
    if not stems:
        raise ValueError(f"{public_uri(storage.uri)}/{layout.split}: the file is empty; {layout.split_made_by}.")
    return stems


def _below(storage: Storage, folder: str) -> list[str]:
    return [entry.key[len(folder) + 1 :] for entry in storage.list(folder)]


def _join(uri: str, folder: str) -> str:
    return f"{uri.rstrip('/')}/{folder}"


def _refuse(storage: Storage, layout: Layout, missing: Sequence[str], made_by: str, others: str = "") -> NoReturn:
    more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    raise FileNotFoundError(
        f"{public_uri(storage.uri)}: missing {', '.join(missing[:_SHOWN])}{more}; {made_by}.{others} "
        f"--data is the folder that is usually called {layout.root}."
    )
