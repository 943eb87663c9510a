"""Regions of images that somebody else has made: label maps as PNG, or masks in COCO's run lengths as JSON."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from proxyclip.images.errors import ImageError
from proxyclip.images.inputs.images import fetch_image
from proxyclip.images.inputs.names import stem
from proxyclip.images.ref import GONE
from proxyclip.storage.store import Storage

# What Pillow, json and a file of another form raise.
_BROKEN = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OSError,
    SyntaxError,
    struct.error,
    Image.DecompressionBombError,
)

Regions = npt.NDArray[np.int32]


def read_regions(storage: Storage, uri: str, image_hw: tuple[int, int]) -> Regions:
    """The regions of an image: (H, W), numbered from 0; -1 where there is none.

    They lie under the image's name with the ending .png or .json. Raises ImageError if they are missing, broken or of
    another size, and StorageError if the storage is down.
    """
    name = stem(uri)
    for ending, decode in ((".png", regions_from_png), (".json", regions_from_json)):
        try:
            data = fetch_image(storage, f"{name}{ending}")
        except ImageError as error:
            if error.reason == GONE:
                continue
            raise ImageError(error.status, f"regions {name}{ending}: {error.reason}") from error
        try:
            regions = decode(data)
        except _BROKEN as error:
            raise ImageError("decode_failed", f"regions {name}{ending}: {error}") from error
        if regions.shape != image_hw:
            raise ImageError(
                "decode_failed",
                f"regions {name}{ending} have {regions.shape[1]} x {regions.shape[0]} pixels, but the image has "
                f"{image_hw[1]} x {image_hw[0]}",
            )
        return regions
    raise ImageError("fetch_failed", f"there are no regions: neither {name}.png nor {name}.json")


def regions_from_png(data: bytes) -> Regions:
    """Pixels of equal values are one region; the values themselves mean nothing. Grey, 16 bit, palette or colour."""
    with Image.open(io.BytesIO(data)) as image:
        values = np.asarray(image)
    if values.ndim == 3:  # a colour stands for a number
        values = values.astype(np.int64) @ (256 ** np.arange(values.shape[2]))
    return np.unique(values, return_inverse=True)[1].reshape(values.shape).astype(np.int32)


def regions_from_json(data: bytes) -> Regions:
    """Masks in COCO's run lengths, as SAM's automatic masks: a list of objects with `segmentation`, or a list of the
    segmentations. Where masks overlap, the smaller one is on top.
    """
    found = json.loads(data)
    masks = found.get("annotations") if isinstance(found, Mapping) else found
    if not isinstance(masks, Sequence) or not masks:
        raise ValueError("there is no list of masks")
    decoded = [_mask(entry.get("segmentation", entry)) for entry in masks]
    if len({mask.shape for mask in decoded}) > 1:
        raise ValueError("the masks have different sizes")
    regions = np.full(decoded[0].shape, -1, np.int64)
    for index in sorted(range(len(decoded)), key=lambda index: -int(decoded[index].sum())):
        regions[decoded[index]] = index
    numbers = np.unique(regions, return_inverse=True)[1].reshape(regions.shape)
    return (numbers - (regions.min() < 0)).astype(np.int32)


def _mask(segmentation: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """A mask of run lengths: column by column, zeros first, as numbers or as COCO's string."""
    height, width = segmentation["size"]
    counts = segmentation["counts"]
    if isinstance(counts, str):
        from pycocotools import mask

        decoded = mask.decode({"size": [height, width], "counts": counts.encode()})
        return np.asarray(decoded, dtype=bool)
    if sum(counts) != height * width:
        raise ValueError(f"run lengths add up to {sum(counts)} pixels, not to {height} x {width}")
    ones = np.arange(len(counts)) % 2 == 1
    return np.repeat(ones, counts).reshape(width, height).T
