"""One image: bytes to RGB pixels, its size changed, and all that can go wrong with it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from proxyclip.config import WindowConfig

Status = Literal["empty", "decode_failed", "too_large", "fetch_failed", "decoder_crashed", "timed_out"]

# Where Pillow's own guard raises, so that nothing below our limit is refused by it. 12000 x 9000 passes.
MAX_PIXELS = 178_956_970

# JPEG's longest side. Work on an image grows with its sides, not only with its area.
MAX_SIDE = 65_535

# A whole image is not padded, so it must hold at least one patch of any tower.
MIN_WHOLE_SIDE = 32

_OPENERS: dict[bytes, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    b"\xff\xd8\xff": JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImageFile,
    b"RIFF": WebPImageFile,
    b"GIF87a": GifImageFile,
    b"GIF89a": GifImageFile,
    b"II*\0": TiffImageFile,
    b"MM\0*": TiffImageFile,
    b"II+\0": TiffImageFile,
    b"MM\0+": TiffImageFile,
    b"BM": BmpImageFile,
}

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)


class ImageError(Exception):
    """An image that cannot be labelled. The same bytes always give the same `status` and `reason`."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(status, reason)
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


@dataclass(frozen=True)
class ResizedImage:
    """An image at the size that its windows are cut from.

    pixels: RGB uint8 (h, w, 3), of size `resized_hw(original_hw, windows)`. original_hw: size of its labels.
    """

    pixels: np.ndarray
    original_hw: tuple[int, int]


def load_image(source: str | Path | bytes | Image.Image | np.ndarray) -> np.ndarray:
    """An image from a file, its bytes, a PIL image or an array, as RGB uint8 (H, W, 3), upright.

    Raises FileNotFoundError, ImageError for what is no readable image, and ValueError for an array that is not
    RGB uint8 (H, W, 3).
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or 0 in source.shape:
            raise ValueError(
                f"image: found an array of shape {source.shape} and type {source.dtype}, wanted RGB uint8 of shape "
                "(height, width, 3); convert it, or hand over a PIL image or a file."
            )
        return source
    if isinstance(source, Image.Image):
        try:
            source.load()
            return _rgb(_upright(source, _orientation(source)))
        except Exception as error:
            raise ImageError("decode_failed", _deterministic(error)) from error
    if isinstance(source, bytes):
        return decode_image(source)
    try:
        return decode_image(Path(source).read_bytes())
    except ImageError as error:
        raise ImageError(error.status, f"{source}: {error.reason}") from error


def resized_hw(image_hw: tuple[int, int], windows: WindowConfig) -> tuple[int, int]:
    """Size that brings the short side to `short_side`, or the long one to `long_side` where that is smaller.

    mmcv's rule: each side is int(side * factor + 0.5). A side never falls below 1 pixel, or `MIN_WHOLE_SIDE` where
    the whole image is the window.
    """
    factor = min(windows.long_side / max(image_hw), windows.short_side / min(image_hw))
    least = 1 if windows.crop else MIN_WHOLE_SIDE
    height, width = (max(int(side * factor + 0.5), least) for side in image_hw)
    return height, width


def read_image(data: bytes, windows: WindowConfig) -> ResizedImage:
    """An encoded image at the size that its windows are cut from: `decode_image`, then `resize_image`.

    With `windows.fast_decode` a JPEG at least twice as large as that is decoded at a half, a quarter or an eighth.
    Raises ImageError as `decode_image` does.
    """
    pixels, original_hw = _decode(data, MAX_PIXELS, windows if windows.fast_decode else None)
    return ResizedImage(resize_image(pixels, resized_hw(original_hw, windows)), original_hw)


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """An encoded image (JPEG, PNG, WebP, TIFF, BMP, GIF) as RGB uint8 (H, W, 3).

    The EXIF orientation is applied, transparent pixels are laid on white, 16-bit and float images are scaled to
    8 bit (see `_eight_bit`), and of an animation the first frame is taken. The format is told by the content,
    not by a name. Whatever the bytes, it returns an image or raises ImageError; safe to call from many threads.
    """
    return _decode(data, max_pixels)[0]


def _decode(data: bytes, max_pixels: int, just_for: WindowConfig | None = None) -> tuple[np.ndarray, tuple[int, int]]:
    """Pixels and the original size, upright both. just_for: JPEGs may be smaller, as long as they suffice for it."""
    if not data:
        raise ImageError("empty", "the file has no bytes")
    opener = next((opener for magic, opener in _OPENERS.items() if data.startswith(magic)), None)
    if opener is None:
        raise ImageError("decode_failed", "not a JPEG, PNG, WebP, TIFF, BMP or GIF file")
    try:
        # Not Image.open: its limit on pixels is a global of the process, ours is an argument.
        with opener(io.BytesIO(data)) as image:
            width, height = image.size
            if min(width, height) < 1:
                raise ImageError("decode_failed", f"{width} x {height} pixels, which is no image")
            if max(width, height) > MAX_SIDE:
                raise ImageError("too_large", f"{width} x {height} pixels, a side longer than {MAX_SIDE}")
            if width * height > max_pixels:
                raise ImageError("too_large", f"{width} x {height} pixels, more than the limit of {max_pixels}")
            smaller = just_for if isinstance(image, JpegImageFile) else None
            if smaller is not None:
                image.draft(image.mode, resized_hw((height, width), smaller)[::-1])  # never below that size
            image.load()
            orientation = _orientation(image)
            pixels = _rgb(_upright(image, orientation))
            if smaller is None:
                return pixels, (pixels.shape[0], pixels.shape[1])
            return pixels, (width, height) if orientation in _SIDEWAYS else (height, width)
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError("too_large", _deterministic(error)) from error
    # Decoders fed with arbitrary bytes raise nearly anything: SyntaxError, struct.error, MemoryError, ...
    except Exception as error:
        raise ImageError("decode_failed", _deterministic(error)) from error


def resize_image(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Bilinear without antialias, by OpenCV as in the papers' pipelines: within a grey level of the exact value.

    image: uint8 (H, W, C); size_hw: the wanted height and width in pixels. Returns uint8 (height, width, C), or
    the image itself where the size is already right.
    """
    height, width = size_hw
    if height < 1 or width < 1:
        raise ValueError(f"resize_image: size_hw {size_hw} found, a height and a width of at least 1 wanted.")
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, -1)


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation. Broken EXIF does not make an image unreadable."""
    try:
        return image.getexif().get(_ORIENTATION_TAG)
    except Exception:
        return None


def _upright(image: Image.Image, orientation: int | None) -> Image.Image:
    """The image as its EXIF orientation wants it seen."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _rgb(image: Image.Image) -> np.ndarray:
    """Any mode of Pillow to RGB uint8 (H, W, 3)."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.repeat(_eight_bit(np.asarray(image))[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(rgba, mask=rgba.getchannel("A"))
    return np.array(image.convert("RGB"))


def _eight_bit(gray: np.ndarray) -> np.ndarray:
    """One channel of 16-bit, 32-bit or float values to uint8, by the smallest usual range that holds them.

    uint16 always spans 0..65535. Others span 0..1 (floats only), 0..255, 0..65535 or up to their maximum.
    Negative values and NaN are black.
    """
    if gray.dtype.kind == "u" and gray.dtype.itemsize == 2:
        full_scale = 65535.0
    else:
        usual = (1.0, 255.0, 65535.0) if gray.dtype.kind == "f" else (255.0, 65535.0)
        gray = np.nan_to_num(gray.astype(np.float32), posinf=0, neginf=0).clip(min=0)
        maximum = float(gray.max())
        full_scale = next((scale for scale in usual if maximum <= scale), maximum)
    return np.rint(gray * np.float32(255 / full_scale)).astype(np.uint8)


def _deterministic(error: Exception) -> str:
    """What a decoder says, without what differs from run to run (addresses in memory)."""
    text = re.sub(r"\s*<[^<>]* at 0x[0-9a-fA-F]+>", "", str(error))
    text = " ".join(text.split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
