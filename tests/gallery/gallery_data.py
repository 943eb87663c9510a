"""Outputs whose images exist, labelled by a rule, and what a gallery of them holds."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.masks import confidence_to_png, mask_to_png
from proxyclip.dataset.rows import Failure, LabelledImage
from proxyclip.dataset.run_record import RunRecord, begin_run
from proxyclip.dataset.shards import write_shard
from proxyclip.images.listing import ImageRef
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import ignore_label
from proxyclip.vocabulary.palette import default_palette

SHARD = 4


def mask_of(number: int, num_classes: int, seed: int = 0) -> np.ndarray:
    """Blocks of classes, with some pixels of none; the last class occurs in every tenth image only."""
    rng = np.random.default_rng([number, seed])
    classes = max(1, num_classes - 1)
    labels = rng.integers(0, classes, (6, 8))
    if number % 10 == 3:
        labels[0, 0] = num_classes - 1
    mask = labels.repeat(20, 0).repeat(21, 1).astype(np.uint8 if num_classes <= 255 else np.uint16)
    mask[-7:, -5:] = ignore_label(num_classes)
    return mask


def confidence_of(number: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([number, seed, 1])
    return rng.integers(40, 256, (30, 42)).astype(np.uint8)


def labelled(uri: str, mask: np.ndarray, confidence: np.ndarray, num_classes: int) -> LabelledImage:
    spread = confidence.repeat(4, 0).repeat(4, 1)[: mask.shape[0], : mask.shape[1]] / 255
    known = mask != ignore_label(num_classes)
    classes, pixels = np.unique(mask[known], return_counts=True)
    return LabelledImage(
        uri=uri,
        height=mask.shape[0],
        width=mask.shape[1],
        mask=mask_to_png(mask, default_palette(num_classes)),
        confidence=confidence_to_png(confidence),
        classes=classes.tolist(),
        pixels=pixels.tolist(),
        class_confidence=[float(spread[mask == index].mean()) for index in classes],
        mean_confidence=float(spread[known].mean()) if known.any() else 0.0,
        ignored=int((~known).sum()),
    )


def photograph(number: int, size: tuple[int, int] = (168, 120)) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


@dataclass
class Corpus:
    """Images below a folder or prefix, and outputs of them."""

    root: str
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    confidences: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def images(self) -> Storage:
        return Storage(f"{self.root}/images")

    def label(
        self,
        name: str,
        uris: list[str],
        names: list[str],
        *,
        seed: int = 0,
        failed: list[str] = [],  # noqa: B006
        shards: int | None = None,
        draw: bool = True,
    ) -> str:
        """Make an output. shards: how many of them are committed; None for all."""
        output = Storage(f"{self.root}/{name}")
        classes = [{"name": each, "queries": [each]} for each in names]
        record = RunRecord(self.images.uri, {"confidence_stride": 4}, f"fingerprint of {name}")
        begin_run(output, record, {"name": f"words of {name}", "classes": classes})
        manifest = Manifest(output)
        manifest.extend_plan([ImageRef(uri, 10, "1") for uri in sorted([*uris, *failed])], SHARD)
        numbers = {uri: number for number, uri in enumerate(sorted(uris))}
        for task in manifest.pending():
            for shard, images in manifest.read_range(task):
                if shards is not None and shard >= shards:
                    continue
                rows, failures = [], []
                for image in images:
                    if image.uri in failed:
                        failures.append(Failure(image.uri, "decode", "decode_failed", f"<b>no image</b> {image.uri}"))
                        continue
                    number = numbers[image.uri]
                    mask, confidence = mask_of(number, len(names), seed), confidence_of(number, seed)
                    rows.append(labelled(image.uri, mask, confidence, len(names)))
                    self.masks[f"{name}/{image.uri}"] = mask
                    self.confidences[f"{name}/{image.uri}"] = confidence
                    if draw:
                        self.images.write(image.uri, photograph(number))
                write_shard(output, shard, rows, failures, names)
        if shards is None:
            manifest.compact()
            manifest.write_class_stats()
        return output.uri


def arguments(data: bytes) -> list:
    """What a script hands to the pages."""
    text = data.decode("ascii")
    return json.loads(f"[{text[text.index('(') + 1 : text.rindex(')')]}]")


def read_gallery(place: str) -> tuple[dict, dict, dict]:
    """What the pages know of gallery, classes and images."""
    about, classes, images = arguments(Storage(place).read("data/gallery.js"))
    return about, classes, images


def read_numbers(place: str, number: int) -> list[np.ndarray]:
    """The PNGs of an image, as arrays: mask, confidence, those of the second output, and the margin."""
    _, pngs, *margin = arguments(Storage(place).read(f"masks/{number:05d}.js"))
    pngs += margin
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in pngs]
