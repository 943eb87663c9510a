"""Open an export: find every mistake that a person can make, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxyclip.dataset.plan import Plan
from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.reading.lists import read_uris, refuse_strangers
from proxyclip.dataset.reading.passes import RECORD, PassRecord, ShardState, shard_states
from proxyclip.export.names import NamesInUse
from proxyclip.export.options import ExportOptions
from proxyclip.export.registry import FORMATS
from proxyclip.export.selection import Selection, chosen_classes
from proxyclip.export.target import Target
from proxyclip.images.inputs.address import input_storage, searched_folder
from proxyclip.pipeline.export.shard import ExportShard, short_hash
from proxyclip.storage.store import Storage, public_uri
from proxyclip.vocabulary.names import Vocabulary
from proxyclip.vocabulary.thresholds import Thresholds


@dataclass(frozen=True)
class ExportRun:
    """An export that can begin. states: its shards, as they are and as their images' names are now."""

    options: ExportOptions
    labels: Labels
    record: PassRecord
    work: ExportShard
    states: list[ShardState]


def open_export(options: ExportOptions) -> ExportRun:
    """Check all that a person can get wrong. Writes nothing. Raises ValueError, FileNotFoundError or ImportError."""
    labels = Labels.open(options.output)
    destination = Storage(options.destination)
    refuse_overlap(destination, labels)
    vocabulary = labels.vocabulary
    selection = Selection(
        colours=tuple((int(red), int(green), int(blue)) for red, green, blue in vocabulary.colours),
        confidence_stride=int(labels.record.recipe["confidence_stride"]),
        thresholds=_thresholds(options, vocabulary),
        classes=chosen_classes(_class_names(options.classes), vocabulary),
        min_confidence_image=options.min_confidence_image,
        only=_only(options, labels),
    )
    target = Target(
        vocabulary.name,
        vocabulary.class_names,
        selection.colours,
        labels.ignore,
        public_uri(input_storage(labels.record.input).uri),
        public_uri(destination.uri),
        options.min_area,
        options.image_prefix,
    )
    form = FORMATS[options.to](target)
    record = PassRecord.of(f"export {options.to}", labels, _settings(options, selection))
    if not destination.exists(RECORD):
        refuse_files(destination, "export")
    names, of_shard = _names(labels) if form.named_after_images else (NamesInUse(), {})
    states = [
        ShardState(shard, short_hash("\0".join((state, *of_shard[shard])).encode()) if shard in of_shard else state)
        for shard, state in shard_states(labels)
    ]
    work = ExportShard(labels.storage.uri, destination.uri, options.to, target, selection, names)
    return ExportRun(options, labels, record, work, states)


def _names(labels: Labels) -> tuple[NamesInUse, dict[int, list[str]]]:
    """The names of the images in the plan, labelled or not, so that a name stays as it is while labelling goes on."""
    plan = Plan(labels.storage)
    parts = plan.parts()

    def images() -> Iterator[tuple[str, int]]:
        for rows in plan.histories(parts):
            newest = rows[-1]
            if newest.shard is not None:
                yield newest.uri, newest.shard

    return NamesInUse.find(images)


def _settings(options: ExportOptions, selection: Selection) -> dict[str, Any]:
    """What else decides the bytes of an export."""
    thresholds = selection.thresholds
    return {
        "thresholds": None if thresholds is None else list(thresholds.values),
        "classes": None if selection.classes is None else list(selection.classes),
        "min_confidence_image": options.min_confidence_image,
        "min_area": options.min_area,
        "image_prefix": options.image_prefix,
        **({} if selection.only is None else {"only": _named(selection.only)}),
    }


def _only(options: ExportOptions, labels: Labels) -> frozenset[str] | None:
    if options.only is None:
        return None
    uris = read_uris(options.only)
    refuse_strangers(labels, uris, options.only)
    return uris


def _named(uris: frozenset[str]) -> str:
    return f"{len(uris)} images, {short_hash(chr(0).join(sorted(uris)).encode())}"


def _thresholds(options: ExportOptions, vocabulary: Vocabulary) -> Thresholds | None:
    if options.thresholds is None:
        below = options.ignore_below
        return Thresholds.uniform(below, vocabulary.num_classes) if below else None
    place = Storage(options.thresholds)
    folder, _, name = place.uri.rpartition("/")
    found = Thresholds.from_json(Storage(folder or "/").read(name), vocabulary, public_uri(place.uri))
    return Thresholds(tuple(max(value, options.ignore_below) for value in found.values))


def _class_names(given: tuple[str, ...]) -> tuple[str, ...]:
    """The names on the command line, or those of the file that it names."""
    if len(given) != 1 or not given[0].lower().endswith(".txt"):
        return given
    lines = Path(given[0]).read_text(encoding="utf-8-sig").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise ValueError(f"--classes: {given[0]} has no names; write one class per line.")
    return names


def refuse_overlap(destination: Storage, labels: Labels) -> None:
    """Raise ValueError if files could be written among the labels, or among the images, which a later run labels."""
    there = _resolved(destination)
    images = searched_folder(labels.record.input)
    for what, other in (("the labels", labels.storage), ("the images", images)):
        if other is None:
            continue
        other_uri = _resolved(other)
        inside = there.startswith(other_uri)
        around = what == "the labels" and other_uri.startswith(there)
        if inside or around:
            raise ValueError(
                f"The destination {public_uri(destination.uri)} is {'inside' if inside else 'around'} {what}, "
                f"{public_uri(other.uri)}; choose a folder beside them."
            )


def _resolved(storage: Storage) -> str:
    return (str(storage.local.resolve()) if storage.local else storage.uri).rstrip("/") + "/"


def refuse_files(destination: Storage, kind: str) -> None:
    """Raise ValueError if a destination holds files. kind: what it may hold."""
    if found := next((entry.key for entry in destination.list() if not entry.key.startswith(".")), None):
        raise ValueError(
            f"The destination {public_uri(destination.uri)} holds files that are no {kind}, such as {found}; choose "
            "an empty folder."
        )
