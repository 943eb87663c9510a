"""Reading: the bytes of one image to RGB pixels, whatever its format, and at the size of its windows."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from proxyclip.config import WindowConfig
from proxyclip.images.errors import ImageError
from proxyclip.images.sizes import ResizedImage, resize_image, resized_hw

# The same limit as Pillow's own. 12000 x 9000 pixels pass.
MAX_PIXELS = 178_956_970

# The longest side of a JPEG. The work on an image grows with its sides, not only with its area.
MAX_SIDE = 65_535

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


def load_image(source: str | Path | bytes | Image.Image | np.ndarray) -> np.ndarray:
    """An image from a file, its bytes, a PIL image or an array, as upright RGB uint8 (H, W, 3).

    Raises FileNotFoundError, ImageError if the image cannot be read, and ValueError if an array is not RGB uint8
    (H, W, 3).
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8 or 0 in source.shape:
            raise ValueError(
                f"image: this array has shape {source.shape} and type {source.dtype}, not RGB uint8 of shape "
                "(height, width, 3); convert it, or pass a PIL image or a file."
            )
        return source
    if isinstance(source, Image.Image):
        try:
            source.load()
            return _rgb(_upright(source, _orientation(source)))
        except Exception as error:
            raise ImageError("decode_failed", _deterministic(error)) from error
    if isinstance(source, bytes):
        return read_pixels(source)
    try:
        return read_pixels(Path(source).read_bytes())
    except ImageError as error:
        raise ImageError(error.status, f"{source}: {error.reason}") from error


def read_image(data: bytes, windows: WindowConfig | None) -> ResizedImage:
    """Read an encoded image at the size from which windows are cut: `read_pixels`, then `resize_image`.

    windows: None leaves the image at its own size.
    With `windows.fast_decode` a JPEG of at least twice that size is read at a half, a quarter or an eighth of its
    own. Raises ImageError as `read_pixels` does.
    """
    if windows is None:
        pixels, original_hw = _read(data, MAX_PIXELS)
        return ResizedImage(pixels, original_hw)

    def wanted(original_hw: tuple[int, int]) -> tuple[int, int]:
        return resized_hw(original_hw, windows)

    pixels, original_hw = _read(data, MAX_PIXELS, wanted if windows.fast_decode else None)
    return ResizedImage(resize_image(pixels, wanted(original_hw)), original_hw)


def read_thumbnail(data: bytes, wanted: Callable[[tuple[int, int]], tuple[int, int]]) -> ResizedImage:
    """Read an encoded image in a hurry, to look at: at the height and width that `wanted` makes of the original ones.

    A JPEG is read at a half, a quarter or an eighth of its size where that is enough. Raises ImageError as
    `read_pixels` does.
    """
    pixels, original_hw = _read(data, MAX_PIXELS, wanted)
    height, width = wanted(original_hw)
    small = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2)
    return ResizedImage(np.asarray(small), original_hw)


def read_pixels(data: bytes, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read an encoded image (JPEG, PNG, WebP, TIFF, BMP, GIF) as RGB uint8 (H, W, 3).

    The format is recognised by the content, not by a name. The EXIF orientation is applied, transparent pixels
    become white, 16-bit and float images are scaled to 8 bit (see `_eight_bit`), and an animation gives its first
    frame. Any bytes give an image or ImageError. Safe to call from many threads.
    """
    return _read(data, max_pixels)[0]


def _read(
    data: bytes, max_pixels: int, wanted: Callable[[tuple[int, int]], tuple[int, int]] | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Upright pixels, and the upright original size.

    wanted: from the original height and width, those below which a JPEG must not be read; None to read all pixels.
    """
    if not data:
        raise ImageError("empty", "the file has no bytes")
    opener = next((opener for magic, opener in _OPENERS.items() if data.startswith(magic)), None)
    if opener is None:
        raise ImageError("decode_failed", "not a JPEG, PNG, WebP, TIFF, BMP or GIF file")
    try:
        # Not Image.open: its limit of pixels is one global for the process, ours is an argument.
        with opener(io.BytesIO(data)) as image:
            width, height = image.size
            if min(width, height) < 1:
                raise ImageError("decode_failed", f"{width} x {height} pixels, which is no image")
            if max(width, height) > MAX_SIDE:
                raise ImageError("too_large", f"{width} x {height} pixels, a side longer than {MAX_SIDE}")
            if width * height > max_pixels:
                raise ImageError("too_large", f"{width} x {height} pixels, more than the limit of {max_pixels}")
            smaller = wanted if isinstance(image, JpegImageFile) else None
            if smaller is not None:
                image.draft(image.mode, smaller((height, width))[::-1])  # keeps at least that size
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
    # On arbitrary bytes Pillow raises nearly anything: SyntaxError, struct.error, MemoryError, ...
    except Exception as error:
        raise ImageError("decode_failed", _deterministic(error)) from error


def _orientation(image: Image.Image) -> int | None:
    """The EXIF orientation, or None. Broken EXIF is no error."""
    try:
        return image.getexif().get(_ORIENTATION_TAG)
    except Exception:
        return None


def _upright(image: Image.Image, orientation: int | None) -> Image.Image:
    """Turn the image as its EXIF orientation says."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _rgb(image: Image.Image) -> np.ndarray:
    """Convert any mode of Pillow to RGB uint8 (H, W, 3)."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.repeat(_eight_bit(np.asarray(image))[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(rgba, mask=rgba.getchannel("A"))
    return np.array(image.convert("RGB"))


def _eight_bit(gray: np.ndarray) -> np.ndarray:
    """Scale one channel of 16-bit, 32-bit or float values to uint8.

    The range of uint16 is 0..65535. Other types have the smallest of these ranges that holds their values: 0..1
    (floats only), 0..255, 0..65535, 0..maximum. Negative values and NaN become black.
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
    """The error's text without memory addresses, which differ from run to run."""
    text = re.sub(r"\s*<[^<>]* at 0x[0-9a-fA-F]+>", "", str(error))
    text = " ".join(text.split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
