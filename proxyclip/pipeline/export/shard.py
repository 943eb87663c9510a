"""The export of one shard: its rows become files of the destination, and a receipt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.reading.passes import FOLDER
from proxyclip.dataset.rows import LabelledImage
from proxyclip.export.names import NamesInUse
from proxyclip.export.pictures import Picture, fetch_pictures
from proxyclip.export.registry import FORMATS
from proxyclip.export.selection import ExportImage, Selection
from proxyclip.export.target import Format, Target
from proxyclip.images.errors import ImageError
from proxyclip.images.inputs.images import Images, open_images
from proxyclip.storage.store import Storage


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
        rows = self._asked(shard)
        chosen = [row for row in rows if self.selection.has(row)]
        images, failures = self._images_of(form, chosen)
        made = form.shard(shard, images)
        part = f"{FOLDER}/parts/{shard:06d}-{short_hash(made.part)}" if made.part else ""
        self._write({**made.files, **({part: made.part} if part else {})})
        receipt = Receipt(sorted(made.files), part, len(images), len(rows) - len(chosen), failures)
        kept = {*receipt.files, receipt.part}
        for old in map(Receipt.from_json, before):
            for key in (*old.files, old.part):
                if key and key not in kept:
                    self._to.delete(key)
        return receipt.to_json()

    def _asked(self, shard: int) -> list[LabelledImage]:
        asked = self.selection.asked
        if self.selection.only is not None:
            uris = self._labels.read_index(shard, ["uri"])["uri"].to_pylist()
            if not any(map(asked, uris)):
                return []
        return [row for row in self._labels.read(shard) if asked(row.uri)]

    def _images_of(
        self, form: Format, rows: Sequence[LabelledImage]
    ) -> tuple[list[tuple[ExportImage, Picture | None]], list[list[str]]]:
        """The images that can be exported, and uri and reason of those that cannot."""
        reasons = {row.uri: reason for row in rows if (reason := form.refuses(row.uri)) is not None}
        left = [row for row in rows if row.uri not in reasons]
        pictures: Sequence[Picture | ImageError | None] = [None] * len(left)
        if form.carries_images:
            pictures = fetch_pictures(self._images, left)
        images: list[tuple[ExportImage, Picture | None]] = []
        for row, picture in zip(left, pictures, strict=True):
            if isinstance(picture, ImageError):
                reasons[row.uri] = picture.reason
            else:
                images.append((ExportImage(row, self.names.name(row.uri), self.selection), picture))
        return images, [[uri, reason] for uri, reason in sorted(reasons.items())]

    def _write(self, files: dict[str, bytes]) -> None:
        with ThreadPoolExecutor(16) as pool:
            for _ in pool.map(self._to.write, files.keys(), files.values()):
                pass

    @cached_property
    def _labels(self) -> Labels:
        return Labels.open(self.source)

    @cached_property
    def _images(self) -> Images:
        return open_images(self._labels.record.input)

    @cached_property
    def _to(self) -> Storage:
        return Storage(self.destination)


def short_hash(data: bytes) -> str:
    """12 hex digits."""
    return hashlib.sha256(data).hexdigest()[:12]
