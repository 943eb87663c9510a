"""Masks made visible: colours, a mask laid over its photograph, and a sheet of several with a legend."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Told apart at a glance, also on a photograph; further classes walk round the colour circle.
_FIRST_COLOURS = (
    "4e79d8 f28e2b 3fae5a d64550 8f63c9 f2c230 2bb3b1 f07fb0 96603a a2c838 5b5fc7 e0602f 1f8a70 b03a8f 7f8c9a c9a26b"
)
IGNORE_COLOUR = (224, 224, 216)

_MARGIN, _GAP, _CAPTION = 32, 12, 30
_INK, _QUIET, _PAPER, _MAT = "#1d2126", "#6a727c", "#ffffff", "#f1f2f4"


def default_palette(num_classes: int) -> np.ndarray:
    """One colour a class, uint8 (K, 3). A class keeps its colour when further classes are added."""
    colours = [tuple(bytes.fromhex(text)) for text in _FIRST_COLOURS.split()]
    for index in range(len(colours), num_classes):
        hue = index * 0.6180339887 % 1  # the golden ratio spreads any number of hues
        saturation, value = 0.5 + 0.45 * (index * 0.7548776662 % 1), 0.55 + 0.43 * (index * 0.5698402910 % 1)
        colours.append(tuple(round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value)))
    return np.array(colours[:num_classes], np.uint8).reshape(num_classes, 3)


def colourise(mask: np.ndarray, palette: np.ndarray, ignore: int) -> np.ndarray:
    """A mask of class indices, (H, W), in the colours of `palette` (K, 3): RGB uint8 (H, W, 3).

    Raises ValueError for an index that is neither a class of the palette nor `ignore`.
    """
    _check_mask(mask, len(palette), ignore)
    colours = np.vstack([palette, [IGNORE_COLOUR]]).astype(np.uint8)
    return colours[np.minimum(mask, len(palette))]


def overlay(
    image: np.ndarray, mask: np.ndarray, palette: np.ndarray, *, alpha: float = 0.5, ignore: int = 255
) -> Image.Image:
    """The mask laid over its image: RGB uint8 (H, W, 3) and (H, W). Ignored pixels show the image alone.

    alpha: how much of the colour is seen, 0 to 1. Lines between classes are drawn in the full colour.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"overlay: the mask has shape {mask.shape}, its image {image.shape[:2]}; they must be equal.")
    if not 0 <= alpha <= 1:
        raise ValueError(f"overlay: alpha {alpha} found, a share from 0 to 1 wanted.")
    colours = colourise(mask, palette, ignore)
    weight = np.where(_edges(mask), 1.0, alpha)
    weight = np.where(mask == ignore, 0.0, weight).astype(np.float32)[:, :, None]
    return Image.fromarray(np.rint(image * (1 - weight) + colours * weight).astype(np.uint8))


def contact_sheet(
    tiles: Sequence[tuple[np.ndarray, np.ndarray, str]],
    class_names: Sequence[str],
    palette: np.ndarray,
    *,
    ignore: int = 255,
    columns: int = 2,
    tile_hw: tuple[int, int] = (270, 360),
    alpha: float = 0.6,
) -> Image.Image:
    """Photographs with their overlays beside them, in a grid, over a legend of the classes that occur.

    tiles: (image, mask, caption) each, as `overlay` takes them; `tile_hw` is the height and width in pixels that
    one photograph fits into. The legend is in order of area. Returns an RGB picture.
    """
    if not tiles:
        raise ValueError("contact_sheet: no tiles found, at least one (image, mask, caption) wanted.")
    if len(class_names) != len(palette):
        raise ValueError(f"contact_sheet: {len(class_names)} class names but {len(palette)} colours found.")
    height, width = tile_hw
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    pair_width = 2 * width + _GAP
    sheet_width = columns * pair_width + (columns + 1) * _MARGIN
    legend = _legend(tiles, class_names, palette, ignore, sheet_width - 2 * _MARGIN)
    row_height = height + _CAPTION + _GAP
    sheet = Image.new("RGB", (sheet_width, 2 * _MARGIN + rows * row_height + legend.height), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for index, (image, mask, caption) in enumerate(tiles):
        x = _MARGIN + index % columns * (pair_width + _MARGIN)
        y = _MARGIN + index // columns * row_height
        # Drawn at twice the size and halved, so that the edges of the mask come out smooth.
        image, mask = _fit(image, mask, 2 * height, 2 * width)
        for offset, picture in (
            (0, Image.fromarray(image)),
            (width + _GAP, overlay(image, mask, palette, alpha=alpha, ignore=ignore)),
        ):
            small = picture.resize((max(1, image.shape[1] // 2), max(1, image.shape[0] // 2)), Image.Resampling.LANCZOS)
            draw.rectangle((x + offset, y, x + offset + width - 1, y + height - 1), fill=_MAT)
            sheet.paste(small, (x + offset + (width - small.width) // 2, y + (height - small.height) // 2))
        draw.text((x, y + height + 6), _shorten(caption, font, pair_width), fill=_QUIET, font=font)
    sheet.paste(legend, (_MARGIN, _MARGIN + rows * row_height + _GAP // 2))
    return sheet


def _legend(
    tiles: Sequence[tuple[np.ndarray, np.ndarray, str]],
    class_names: Sequence[str],
    palette: np.ndarray,
    ignore: int,
    width: int,
) -> Image.Image:
    """Swatches and names of the classes that occur, largest share of the pictures first, wrapped at `width`."""
    share = np.zeros(len(palette))
    for _, mask, _ in tiles:
        labels, counts = np.unique(mask[mask != ignore], return_counts=True)
        _check_mask(labels, len(palette), ignore)
        share[labels] += counts / mask.size
    swatch, line = 18, 30
    font = ImageFont.load_default(size=17)
    entries, x, y = [], 0, 0
    for index in np.argsort(-share, kind="stable")[: np.count_nonzero(share)]:
        name = _shorten(class_names[index], font, width - 3 * swatch)
        entry_width = swatch + 8 + int(font.getlength(name)) + 26
        if x and x + entry_width > width:
            x, y = 0, y + line
        entries.append((x, y, name, tuple(int(channel) for channel in palette[index])))
        x += entry_width
    legend = Image.new("RGB", (width, y + line), _PAPER)
    draw = ImageDraw.Draw(legend)
    for x, y, name, colour in entries:
        draw.rounded_rectangle((x, y + 6, x + swatch - 1, y + 5 + swatch), radius=4, fill=colour)
        draw.text((x + swatch + 8, y + 6 + swatch // 2), name, fill=_INK, font=font, anchor="lm")
    return legend


def _fit(image: np.ndarray, mask: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask at the largest size of their aspect that fits into height x width."""
    scale = min(height / image.shape[0], width / image.shape[1])
    size = max(2, round(image.shape[1] * scale)), max(2, round(image.shape[0] * scale))
    picture = Image.fromarray(image)
    rows = np.arange(size[1]) * mask.shape[0] // size[1]
    columns = np.arange(size[0]) * mask.shape[1] // size[0]
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS)), mask[rows[:, None], columns]


def _edges(mask: np.ndarray) -> np.ndarray:
    """Pixels whose right or lower neighbour has another label, bool (H, W)."""
    edges = np.zeros(mask.shape, bool)
    edges[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edges[:-1] |= mask[:-1] != mask[1:]
    return edges


def _check_mask(mask: np.ndarray, num_classes: int, ignore: int) -> None:
    wrong = (mask >= num_classes) & (mask != ignore)
    if wrong.any():
        raise ValueError(
            f"mask: label {int(mask[wrong][0])} found, one of {num_classes} classes (0 to {num_classes - 1}) or "
            f"{ignore} (ignore) wanted; palette and mask belong to different vocabularies."
        )


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """One line of text that is no wider than `width` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."
