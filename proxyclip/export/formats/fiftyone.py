"""fiftyone: a folder of masks, and a script that makes a FiftyOne dataset of them and the images."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pprint import pformat

import numpy as np
from PIL import Image

from proxyclip.export.pictures import Picture
from proxyclip.export.selection import ExportImage
from proxyclip.export.target import Format, Parts, ShardFiles, WholeFile, json_lines

_SCRIPT = '''"""Make a FiftyOne dataset: python import_fiftyone.py [--images FOLDER] [--name NAME]"""

import argparse
import json
from pathlib import Path

import fiftyone as fo

IMAGES = {images!r}
NAME = {name!r}
CLASSES = {classes}

here = Path(__file__).resolve().parent
parser = argparse.ArgumentParser()
parser.add_argument("--images", default=IMAGES, help="folder of the images; a local one")
parser.add_argument("--name", default=NAME, help="name of the new dataset")
options = parser.parse_args()


def samples():
    with (here / "samples.jsonl").open(encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            yield fo.Sample(
                filepath=str(Path(options.images, line["uri"])),
                labels=fo.Segmentation(mask_path=str(here / line["mask"])),
                mean_confidence=line["mean_confidence"],
            )


dataset = fo.Dataset(options.name, persistent=True)
dataset.default_mask_targets = dict(enumerate(CLASSES, start=1))  # 0 is FiftyOne's background: no class
dataset.add_samples(samples())
print(dataset)
'''


class FiftyOne(Format):
    """labels/NAME.png, samples.jsonl and import_fiftyone.py.

    A pixel holds the index of its class plus 1, and 0 where it has none: FiftyOne does not show the value 0.
    """

    named_after_images = True

    def shard(self, shard: int, images: Sequence[tuple[ExportImage, Picture | None]]) -> ShardFiles:
        files = {_key(image): _plus_one(image) for image, _ in images}
        return ShardFiles(files, json_lines(_sample(image) for image, _ in images))

    def finish(self, parts: Parts) -> Iterator[WholeFile]:
        yield "samples.jsonl", parts()
        text = _SCRIPT.format(
            images=self.target.input,
            name=f"proxyclip {self.target.name}",
            classes=pformat(list(self.target.class_names), width=100),
        )
        yield "import_fiftyone.py", [text.encode()]


def _key(image: ExportImage) -> str:
    return f"labels/{image.name}.png"


def _sample(image: ExportImage) -> dict[str, object]:
    return {
        "uri": image.uri,
        "mask": _key(image),
        "mean_confidence": round(float(image.row.mean_confidence), 4),
    }


def _plus_one(image: ExportImage) -> bytes:
    mask = image.mask
    labelled = mask != image.selection.ignore
    shifted = np.where(labelled, mask, 0) + labelled.astype(mask.dtype)  # at most 255, or 65535: it fits
    buffer = io.BytesIO()
    Image.fromarray(shifted).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
