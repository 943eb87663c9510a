"""Which masks a student learns from: their fingerprint, what is held out, and the order of training. Without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from proxyclip.dataset.reading.labels import Labels

_HASH_RANGE = 2**32


@dataclass(frozen=True)
class Masks:
    """What is in an output. fingerprint: of the recipe and of every mask file. pixels: of each class."""

    fingerprint: str
    recipe: str
    class_names: tuple[str, ...]
    pixels: tuple[int, ...]
    images: int


def fingerprint_of(labels: Labels) -> str:
    """Changes with the masks: with their recipe, with new shards and with rows that died."""
    digest = hashlib.sha256(labels.record.fingerprint.encode())
    for commit in labels.commits():
        if commit.labelled:
            digest.update(f"{commit.shard} {commit.files['masks'].sha256}\n".encode())
    dead = {str(shard): sorted(uris) for shard, uris in labels.dead.items()}
    digest.update(json.dumps(dead, sort_keys=True).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def masks_of(output: str) -> Masks:
    """Look at an output. Raises ValueError if nothing can be learned from it."""
    labels = Labels.open(output)
    names = tuple(labels.vocabulary.class_names)
    pixels, images = np.zeros(len(names), np.int64), 0
    for table in labels.index(["classes", "pixels"]):
        images += table.num_rows
        for classes, counts in zip(table["classes"].to_pylist(), table["pixels"].to_pylist(), strict=True):
            np.add.at(pixels, classes, counts)
    if not images:
        raise ValueError(f"{output}: there are no labelled images yet; wait until the job commits its first shard.")
    if not pixels.any():
        raise ValueError(
            f"{output}: every pixel of its {images} images is ignored, so there is nothing to learn; lower its "
            "thresholds (--ignore-below, --thresholds)."
        )
    if np.count_nonzero(pixels) == 1:
        only = names[int(pixels.argmax())]
        raise ValueError(f'{output}: all labelled pixels are "{only}"; a student needs at least two classes.')
    return Masks(fingerprint_of(labels), labels.record.fingerprint, names, tuple(pixels.tolist()), images)


def is_held_out(uri: str, share: float) -> bool:
    """Whether an image is kept for validation: by its name, so that it stays so when the corpus grows."""
    return _lot(uri) < share * _HASH_RANGE


def share_of(indices: list[int], uris: list[str], share: float) -> list[int]:
    """Some of the images, at least one: by their names too, since a corpus is often sorted by what it shows."""
    number = max(round(len(indices) * share), 1)
    return sorted(sorted(indices, key=lambda index: _lot(uris[index]))[:number])


def _lot(uri: str) -> int:
    digest = hashlib.sha256(uri.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:4], "big")


def split(uris: list[str], share: float, excluded: Collection[str]) -> tuple[list[int], list[int]]:
    """The indices to learn from, and those that are held out. excluded: images that people labelled: neither."""
    known = set(excluded)
    learn: list[int] = []
    held: list[int] = []
    for index, uri in enumerate(uris):
        if uri not in known:
            (held if is_held_out(uri, share) else learn).append(index)
    return learn, held
