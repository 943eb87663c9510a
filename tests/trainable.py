"""A labelled output with dead rows and failures, and images from which one can tell which image and column they are."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
from outputs import NAMES, RECORD, images, label_pending
from PIL import Image

from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.run_record import begin_run
from proxyclip.storage.store import Storage

# Shards of three: 0 to 19, of which 6 and 13 fail. Then 0 and 1 change, 2, 17 and 18 go, 30 to 33 come.
LIVE = [f"{number:03d}.jpg" for number in (*range(2), *range(3, 17), 19, *range(30, 34)) if number % 7 != 6]


def draw_image(folder: Storage, uri: str, height: int = 9) -> None:
    """An image as large as its mask in `outputs`: red is its number, green its column."""
    number = int(uri[:3])
    pixels = np.full((height, 6 + number % 5, 3), number, np.uint8)
    pixels[..., 1] = np.arange(pixels.shape[1])
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    folder.write(uri, buffer.getvalue())


def make_output(root: str) -> str:
    """Images and labels below a folder or prefix. Returns the URI of the labels."""
    folder, output = Storage(f"{root}/images"), Storage(f"{root}/labels")
    for number in (*range(20), *range(30, 34)):
        draw_image(folder, f"{number:03d}.jpg")
    begin_run(output, dataclasses.replace(RECORD, input=folder.uri), {"name": "ours", "classes": NAMES})
    first, then = images(20), [*images(2, etag="2"), *images(14, 3), *images(1, 19), *images(4, 30)]
    for listing in (first, then):
        manifest = Manifest(output)
        manifest.extend_plan(listing, 3)
        label_pending(manifest)
    return output.uri
