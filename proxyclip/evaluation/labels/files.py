"""Label files: where the one of an image is, and what it holds."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from proxyclip.evaluation.labels.coding import LabelError
from proxyclip.images.inputs.names import as_path, stem
from proxyclip.storage.store import Storage, public_uri

# Formats without loss. JPEG changes values.
_FORMATS = ("PNG", "TIFF", "BMP", "GIF")
_MODES = ("1", "L", "P", "I;16", "I;16B", "I;16L", "I")
# PIL scales gray PNG files of 2 and 4 bits to 0..255.
_SCALED = {"L;2": 85, "L;4": 17}


@dataclass(frozen=True)
class LabelFiles:
    """The label of each image of an output.

    uri: the folder or prefix of the label files. A label's key is that of its image, with `image_suffix` replaced by
    `suffix`. image_suffix: None for the extension, whatever it is.
    """

    uri: str
    suffix: str = ".png"
    image_suffix: str | None = None

    def key(self, image_uri: str) -> str:
        """Where the label of an image is."""
        if self.image_suffix is not None:
            return as_path(image_uri).removesuffix(self.image_suffix) + self.suffix
        return stem(image_uri) + self.suffix

    def digest(self) -> str:
        """Changes when a label file is added, changed or removed. Raises FileNotFoundError if there are none."""
        digest, count = hashlib.sha256(), 0
        for entry in Storage(self.uri).list():
            if entry.key.endswith(self.suffix):
                digest.update(f"{entry.key}\0{entry.size_bytes}\0{entry.etag}\n".encode("utf-8", "surrogateescape"))
                count += 1
        if not count:
            raise FileNotFoundError(
                f"labels {public_uri(self.uri)}: no file there ends in {self.suffix!r}; check --labels and "
                "--label-suffix."
            )
        return digest.hexdigest()

    def read(self, image_uri: str) -> npt.NDArray[np.integer]:
        """The values (H, W) of an image's label. Raises LabelError if it is missing or no label."""
        key = self.key(image_uri)
        try:
            data = Storage(self.uri).read(key)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise LabelError("no_label", f"there is no label {key}") from None
        try:
            return read_label(data)
        except LabelError as error:
            raise LabelError(error.status, f"label {key}: {error.reason}") from None


def read_label(data: bytes) -> npt.NDArray[np.integer]:
    """The values (H, W) of a label image: one channel of integers, never decoded colours. Raises LabelError."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            if image.mode not in _MODES:
                raise LabelError(
                    "not_a_label",
                    f"the image has mode {image.mode}; a label has one channel, whose values are classes",
                )
            raw = image.tile[0].args if image.format == "PNG" and image.tile else None
            values = np.array(image)
    except LabelError:
        raise
    except Exception as error:  # PIL raises many kinds for damaged files
        raise LabelError("not_a_label", f"this is no readable {', '.join(_FORMATS)} file") from error
    if values.dtype == bool:
        values = values.astype(np.uint8)
    return values // _SCALED[raw] if isinstance(raw, str) and raw in _SCALED else values
