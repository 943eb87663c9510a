"""Labelled outputs with their photographs on a disk, for the exports."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from outputs import RECORD
from PIL import Image

from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.masks import confidence_to_png, mask_from_png, mask_to_png
from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.rows import LabelledImage
from proxyclip.dataset.run_record import begin_run
from proxyclip.dataset.shards import write_shard
from proxyclip.export.options import ExportOptions
from proxyclip.images.listing import ImageRef
from proxyclip.pipeline.export.run import export
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import ignore_label
from proxyclip.vocabulary.palette import default_palette

NAMES = ["sky", 'tree & "bush"', "horse <x>", "naïve: 図"]
ODD = ["plain.jpg", "more/ä b<script>.jpg", "a.b & c's.png", "100%.jpeg", '"q".JPG', "図/a.webp"]


def label(folder: Path, uris: list[str], output: str | None = None, names: list[str] = NAMES, etag: str = "1") -> str:
    """Draw photographs and label them by a rule, three a shard. Labels those that are new. Returns the output."""
    output = output or str(folder / "labels")
    storage = Storage(output)
    begin_run(storage, replace(RECORD, input=str(folder / "images")), {"name": "ours", "classes": names})
    manifest = Manifest(storage)
    for uri in uris:
        draw(folder / "images" / uri)
    manifest.extend_plan([ImageRef(uri, 10, etag) for uri in sorted(uris)], 3)
    label_pending(manifest, names)
    return output


def label_pending(manifest: Manifest, names: list[str] = NAMES, only: range | None = None) -> None:
    for task in manifest.pending():
        for shard, images in manifest.read_range(task):
            if only is None or shard in only:
                write_shard(manifest.storage, shard, [row(image.uri, names) for image in images], [], names)


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = size_of(path.name)
    pixels = rng(path.name).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def row(uri: str, names: list[str] = NAMES) -> LabelledImage:
    """Blocks and specks of classes and ignore, with any confidence."""
    height, width = size_of(uri.rpartition("/")[2])
    random = rng(uri)
    values = np.array([*range(len(names)), ignore_label(len(names))])
    mask = random.choice(values, (-(-height // 6), -(-width // 6))).repeat(6, 0).repeat(6, 1)[:height, :width]
    specks = random.random(mask.shape) < 0.02
    mask = np.where(specks, random.choice(values, mask.shape), mask).astype(np.uint16)
    confidence = random.integers(0, 256, (-(-height // 4), -(-width // 4)), dtype=np.uint8)
    labelled = mask != values[-1]
    classes, pixels = np.unique(mask[labelled], return_counts=True)
    spread = confidence.repeat(4, 0)[:height].repeat(4, 1)[:, :width] / 255
    return LabelledImage(
        uri=uri,
        height=height,
        width=width,
        mask=mask_to_png(mask, default_palette(len(names))),
        confidence=confidence_to_png(confidence),
        classes=classes.tolist(),
        pixels=pixels.tolist(),
        class_confidence=[float(spread[mask == index].mean()) for index in classes],
        mean_confidence=float(spread[labelled].mean()),
        ignored=int((~labelled).sum()),
    )


def rng(name: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little"))


def size_of(name: str) -> tuple[int, int]:
    """No multiple of the blocks; 9 pixels are fewer than a whole number of blocks of confidence would say."""
    return [(9, 30), (37, 53), (64, 41)][len(name) % 3]


def masks(output: str) -> dict[str, np.ndarray]:
    return {image.uri: mask_from_png(image.mask) for image in Labels.open(output).images()}


def spread_confidence(output: str) -> dict[str, np.ndarray]:
    """255 times the confidence, for each pixel."""
    found = {}
    for image in Labels.open(output).images():
        blocks = mask_from_png(image.confidence)
        found[image.uri] = blocks.repeat(4, 0)[: image.height].repeat(4, 1)[:, : image.width]
    return found


def exported(output: str, destination: Path | str, to: str, **changes: object) -> Path:
    """Export to a folder. Every image must come through."""
    summary = export(ExportOptions(output, str(destination), to, **changes))
    assert summary.exit_code == 0
    return Path(destination)
