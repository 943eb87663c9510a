"""Preview: overlays of the first images of a run, and a contact sheet of them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice

from PIL import Image

from proxyclip.dataset.layout import CONTACT_SHEET, preview_key
from proxyclip.dataset.masks import mask_from_png
from proxyclip.dataset.run_record import read_names, require_run
from proxyclip.dataset.shards import read_masks
from proxyclip.gallery.contact_sheet import Tile, contact_sheet
from proxyclip.gallery.options import PreviewOptions
from proxyclip.images.inputs.images import Images, fetch_image, open_images
from proxyclip.images.reading import read_pixels
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import ignore_label
from proxyclip.vocabulary.palette import overlay


def preview(options: PreviewOptions) -> list[str]:
    """Write overlays and a contact sheet into the output. Returns their keys, the contact sheet's last."""
    output = Storage(options.output)
    images = open_images(require_run(output).input)
    vocabulary = read_names(output)
    colours, ignore = vocabulary.colours, ignore_label(vocabulary.num_classes)
    on_sheet: list[Tile] = []
    keys = []
    for tile in islice(_tiles(output, images), options.limit):
        keys.append(preview_key(tile.caption))
        output.write(keys[-1], _png(overlay(tile.image, tile.mask, colours, ignore=ignore)))
        if len(on_sheet) < options.sheet:
            on_sheet.append(tile)
    if not keys:
        raise ValueError(f"{options.output} has no masks yet; wait until the labelling job has committed a shard.")
    keys.append(CONTACT_SHEET)
    sheet = contact_sheet(on_sheet, vocabulary.class_names, colours, ignore=ignore)
    output.write(keys[-1], _png(sheet))
    return keys


def _tiles(output: Storage, images: Images) -> Iterator[Tile]:
    for row in read_masks(output):
        yield Tile(read_pixels(fetch_image(images, row.uri)), mask_from_png(row.mask), row.uri)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
