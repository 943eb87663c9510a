"""ImageRef: an image that is not read yet."""

from __future__ import annotations

from dataclasses import dataclass

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")

GONE = "no such file; it was removed after it was listed, or is a dead link"


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image that is not read yet.

    uri: its name in the input (`inputs.names` has the forms). size_bytes: 0 if the input does not say. etag: changes
    when the image changes; empty if the input does not say.
    """

    uri: str
    size_bytes: int
    etag: str


def is_image(key: str) -> bool:
    """Whether a file counts as an image: by its extension, upper or lower case, and not if it is hidden."""
    return key.lower().endswith(EXTENSIONS) and not key.startswith(".") and "/." not in key
