"""Export the labels of an output: open the export, go over the shards, write what holds them all."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.reading.passes import FOLDER, RECORD, Ledger, PassRecord, ShardState, shard_states
from proxyclip.export.names import NamesInUse
from proxyclip.export.options import ExportOptions
from proxyclip.export.pictures import Picture, fetch_pictures
from proxyclip.export.registry import FORMATS
from proxyclip.export.selection import ExportImage, Selection, chosen_classes
from proxyclip.export.target import Target
from proxyclip.images.errors import ImageError
from proxyclip.images.listing import input_storage
from proxyclip.pipeline.passes.run import PassSummary, run_pass
from proxyclip.storage.store import Storage, public_uri
from proxyclip.vocabulary.names import Vocabulary
from proxyclip.vocabulary.thresholds import Thresholds

FAILURES = "failures.jsonl"
_FINISHED = f"{FOLDER}/finished"


class Receipt(NamedTuple):
    """What an exported shard leaves in the ledger.

    files: its keys. part: the key of its part of the files that hold all shards, or "". failures: uri and reason.
    """

    files: list[str]
    part: str
    exported: int
    left_out: int
    failures: list[list[str]]

    def to_json(self) -> bytes:
        return json.dumps(self._asdict(), ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Receipt:
        return cls(**json.loads(data))


@dataclass(frozen=True)
class ExportShard:
    """The work on a shard. source, destination: URIs."""

    source: str
    destination: str
    to: str
    target: Target
    selection: Selection
    names: NamesInUse

    def __call__(self, shard: int, before: Sequence[bytes]) -> bytes:
        form = FORMATS[self.to](self.target)
        rows = self._labels.read(shard)
        chosen = [row for row in rows if self.selection.has(row)]
        failures = [[row.uri, reason] for row in chosen if (reason := form.refuses(row.uri)) is not None]
        refused = {uri for uri, _ in failures}
        chosen = [row for row in chosen if row.uri not in refused]
        pictures: Sequence[Picture | ImageError | None] = [None] * len(chosen)
        if form.carries_images:
            pictures = fetch_pictures(self._images, chosen)
        images: list[tuple[ExportImage, Picture | None]] = []
        for row, picture in zip(chosen, pictures, strict=True):
            if isinstance(picture, ImageError):
                failures.append([row.uri, picture.reason])
            else:
                images.append((ExportImage(row, self.names.name(row.uri), self.selection), picture))
        made = form.shard(shard, images)
        part = f"{FOLDER}/parts/{shard:06d}-{_sha(made.part)}" if made.part else ""
        self._write({**made.files, **({part: made.part} if part else {})})
        receipt = Receipt(sorted(made.files), part, len(images), len(rows) - len(chosen) - len(refused), failures)
        kept = {*receipt.files, receipt.part}
        for old in map(Receipt.from_json, before):
            for key in (*old.files, old.part):
                if key and key not in kept:
                    self._to.delete(key)
        return receipt.to_json()

    def _write(self, files: dict[str, bytes]) -> None:
        with ThreadPoolExecutor(16) as pool:
            for _ in pool.map(self._to.write, files.keys(), files.values()):
                pass

    @cached_property
    def _labels(self) -> Labels:
        return Labels.open(self.source)

    @cached_property
    def _images(self) -> Storage:
        return input_storage(self._labels.record.input)

    @cached_property
    def _to(self) -> Storage:
        return Storage(self.destination)


@dataclass(frozen=True)
class ExportRun:
    """An export that can begin. states: its shards, as they are and as their images' names are now."""

    options: ExportOptions
    labels: Labels
    record: PassRecord
    work: ExportShard
    states: list[ShardState]


@dataclass
class ExportSummary:
    """How an export ended. left_out: images below --min-confidence-image. failed: images listed in FAILURES."""

    work: PassSummary
    exported: int = 0
    left_out: int = 0
    failed: int = 0
    shards_not_labelled: int = 0

    @property
    def exit_code(self) -> int:
        """0: all is exported. 1: not finished. 3: finished, but some images cannot be exported."""
        if not self.work.finished:
            return 1
        return 3 if self.failed else 0


def open_export(options: ExportOptions) -> ExportRun:
    """Check all that a person can get wrong. Writes nothing. Raises ValueError, FileNotFoundError or ImportError."""
    labels = Labels.open(options.output)
    destination = Storage(options.destination)
    _refuse_overlap(destination, labels)
    vocabulary = labels.vocabulary
    selection = Selection(
        colours=tuple((int(red), int(green), int(blue)) for red, green, blue in vocabulary.colours),
        confidence_stride=int(labels.record.recipe["confidence_stride"]),
        thresholds=_thresholds(options, vocabulary),
        classes=chosen_classes(_class_names(options.classes), vocabulary),
        min_confidence_image=options.min_confidence_image,
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
        _refuse_files(destination)
    names, of_shard = NamesInUse.find(lambda: labels.index(["uri"])) if form.named_after_images else (NamesInUse(), {})
    states = [
        ShardState(shard, _sha("\0".join((state, *of_shard[shard])).encode()) if shard in of_shard else state)
        for shard, state in shard_states(labels)
    ]
    work = ExportShard(labels.storage.uri, destination.uri, options.to, target, selection, names)
    return ExportRun(options, labels, record, work, states)


def export(options: ExportOptions) -> ExportSummary:
    """Export an output, or what is not exported of it yet."""
    run = open_export(options)
    destination = Storage(options.destination)
    ledger = Ledger(destination)
    ledger.begin(run.record)
    work = run_pass(
        run.labels,
        ledger,
        run.work,
        verb="exporting",
        address=options.address,
        concurrency=options.concurrency,
        verbose=options.verbose,
        states=run.states,
    )
    totals = run.labels.totals
    summary = ExportSummary(work, shards_not_labelled=totals.shards - totals.committed)
    if work.finished:
        _finish(run, ledger, summary)
    return summary


def _finish(run: ExportRun, ledger: Ledger, summary: ExportSummary) -> None:
    """Write the files that hold all shards, unless this was done for the same shards before."""
    failures = []
    parts = []
    for _, data in ledger.results(run.states):
        receipt = Receipt.from_json(data)
        summary.exported += receipt.exported
        summary.left_out += receipt.left_out
        failures += [{"uri": uri, "reason": reason} for uri, reason in receipt.failures]
        parts += [receipt.part] if receipt.part else []
    summary.failed = len(failures)
    to = ledger.destination
    state = _sha(json.dumps([run.states, parts]).encode()).encode()
    if to.exists(_FINISHED) and to.read(_FINISHED) == state:
        return
    form = FORMATS[run.options.to](run.work.target)
    for key, pieces in form.finish(lambda: _read_all(to, parts)):
        _write_pieces(to, key, pieces)
    if failures:
        _write_pieces(to, FAILURES, (f"{json.dumps(each, ensure_ascii=False)}\n".encode() for each in failures))
    else:
        to.delete(FAILURES)
    to.write(_FINISHED, state)


def _read_all(storage: Storage, keys: Sequence[str]) -> Iterator[bytes]:
    """Read files in order, a few ahead."""
    with ThreadPoolExecutor(8) as pool:
        for first in range(0, len(keys), 16):
            yield from pool.map(storage.read, keys[first : first + 16])


def _write_pieces(storage: Storage, key: str, pieces: Iterable[bytes]) -> None:
    """Write a file that may not fit into memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        with path.open("wb") as file:
            file.writelines(pieces)
        storage.write_file(key, path)


def _settings(options: ExportOptions, selection: Selection) -> dict[str, Any]:
    """What else decides the bytes of an export."""
    thresholds = selection.thresholds
    return {
        "thresholds": None if thresholds is None else list(thresholds.values),
        "classes": None if selection.classes is None else list(selection.classes),
        "min_confidence_image": options.min_confidence_image,
        "min_area": options.min_area,
        "image_prefix": options.image_prefix,
    }


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


def _refuse_overlap(destination: Storage, labels: Labels) -> None:
    """Raise ValueError if files could be written among the labels, or among the images, which a later run labels."""
    there = _resolved(destination)
    images = input_storage(labels.record.input)
    for what, other in (("the labels", labels.storage), ("the images", images)):
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


def _refuse_files(destination: Storage) -> None:
    if found := next((entry.key for entry in destination.list() if not entry.key.startswith(".")), None):
        raise ValueError(
            f"The destination {public_uri(destination.uri)} holds files that are no export, such as {found}; choose "
            "an empty folder."
        )


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
