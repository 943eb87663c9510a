"""Pictures of a run: images under their labels, and a contact sheet of them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image

from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.masks import decode_mask
from proxyclip.dataset.shards import read_masks
from proxyclip.dataset.validate import json_object
from proxyclip.gallery.contact_sheet import contact_sheet
from proxyclip.images.listing import fetch_image, input_storage
from proxyclip.images.reading import decode_image
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary, ignore_label
from proxyclip.vocabulary.palette import overlay


@dataclass(frozen=True)
class PreviewOptions:
    """Draw what a run has labelled so far: OUTPUT/preview/*.png and OUTPUT/preview/contact_sheet.png."""

    output: str
    """The output of jobs/label.py."""
    limit: int = 24
    """How many images, from the first on."""
    sheet: int = 12
    """How many of them stand on the contact sheet."""


def preview(options: PreviewOptions) -> list[str]:
    """Write overlays and a contact sheet beside the masks; returns their keys, the sheet's last."""
    output = Storage(options.output)
    vocabulary = Vocabulary.from_json(json_object(output.read("vocabulary.json"), "vocabulary.json"))
    tiles = list(islice(_tiles(output), options.limit))
    if not tiles:
        raise ValueError(f"{options.output} has no committed masks yet; run jobs/label.py first.")
    ignore = ignore_label(vocabulary.num_classes)
    keys = []
    for image, mask, uri in tiles:
        keys.append(_key(uri))
        output.write(keys[-1], _png(overlay(image, mask, vocabulary.colours, ignore=ignore)))
    keys.append("preview/contact_sheet.png")
    sheet = contact_sheet(tiles[: options.sheet], vocabulary.class_names, vocabulary.colours, ignore=ignore)
    output.write(keys[-1], _png(sheet))
    return keys


def _key(uri: str) -> str:
    folder, slash, name = uri.rpartition("/")
    if len(name.encode()) > 250:  # disks take 255 bytes a name
        name = hashlib.sha256(name.encode()).hexdigest()
    return f"preview/{folder}{slash}{name}.png"


def _tiles(output: Storage) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    images = input_storage(Manifest(output).run_record()["input"])
    for row in read_masks(output):
        yield decode_image(fetch_image(images, row.uri)), decode_mask(row.mask), row.uri


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
