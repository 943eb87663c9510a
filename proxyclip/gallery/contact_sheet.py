"""Contact sheet: several photographs beside their overlays, and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from proxyclip.vocabulary.palette import check_mask, overlay

_MARGIN, _GAP, _CAPTION = 32, 12, 30
_INK, _QUIET, _PAPER, _MAT = "#1d2126", "#6a727c", "#ffffff", "#f1f2f4"


class Tile(NamedTuple):
    """image: (H, W, 3) RGB uint8. mask: (H, W)."""

    image: np.ndarray
    mask: np.ndarray
    caption: str


def contact_sheet(
    tiles: Sequence[Tile],
    class_names: Sequence[str],
    palette: np.ndarray,
    *,
    ignore: int = 255,
    columns: int = 2,
    tile_hw: tuple[int, int] = (270, 360),
    alpha: float = 0.6,
) -> Image.Image:
    """Draw each photograph with its overlay beside it, in a grid, and below it a legend of the classes that occur.

    tile_hw: height and width in pixels that one photograph fits into. The legend starts with the class that covers
    the largest area. Returns an RGB picture.
    """
    if not tiles:
        raise ValueError("A contact sheet needs at least one tile; there are none.")
    if len(class_names) != len(palette):
        raise ValueError(f"There are {len(class_names)} class names but {len(palette)} colours; give one per class.")
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
        # Draw at twice the size, then halve: this smooths the edges of the mask.
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
    tiles: Sequence[Tile], class_names: Sequence[str], palette: np.ndarray, ignore: int, width: int
) -> Image.Image:
    """Colours and names of the classes that occur, by falling share of the pictures, in lines of at most `width`."""
    share = np.zeros(len(palette))
    for _, mask, _ in tiles:
        labels, counts = np.unique(mask[mask != ignore], return_counts=True)
        check_mask(labels, len(palette), ignore)
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
    """Resize image and mask to the largest size that fits into height x width and keeps their aspect ratio."""
    scale = min(height / image.shape[0], width / image.shape[1])
    size = max(2, round(image.shape[1] * scale)), max(2, round(image.shape[0] * scale))
    picture = Image.fromarray(image)
    rows = np.arange(size[1]) * mask.shape[0] // size[1]
    columns = np.arange(size[0]) * mask.shape[1] // size[0]
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS)), mask[rows[:, None], columns]


def _shorten(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    """Cut a text to one line of at most `width` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text.rstrip() + "..."
