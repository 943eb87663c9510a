"""The reliability picture: confidence against the share that is right, for all classes and for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from proxyclip.vocabulary.names import Vocabulary
from proxyclip.vocabulary.thresholds import KEEP_NONE, Thresholds

# Classes with a panel of their own: those with the most pixels.
CLASSES_SHOWN = 15

_INK, _QUIET, _PAPER, _FIELD, _LINE = "#1d2126", "#6a727c", "#ffffff", "#f1f2f4", "#c9ced4"
_BEFORE, _AFTER, _DROPPED = "#1f6fb2", "#d2691e", "#e4d9d0"
_LARGE, _SMALL, _MARGIN, _TITLE = 420, 190, 48, 46
_COLUMNS = 5


def reliability_picture(found: Mapping[str, Any], thresholds: Thresholds, vocabulary: Vocabulary) -> Image.Image:
    """Draw `reliability.reliability`, as an RGB picture.

    Above: all classes, as measured and after temperature and offset. Below: each class, with the part that its
    threshold drops in gray. A dot is a group of pixels; on the diagonal, confidence is the share that is right.
    """
    values = dict(zip(vocabulary.class_names, thresholds.values, strict=True))
    classes = sorted(found["classes"].items(), key=lambda item: -_pixels(item[1]["diagram"]))[:CLASSES_SHOWN]
    rows = -(-len(classes) // _COLUMNS)
    width = 2 * _MARGIN + _COLUMNS * _SMALL + (_COLUMNS - 1) * _MARGIN
    height = 2 * _MARGIN + _TITLE + _LARGE + rows * (_SMALL + _TITLE + _MARGIN)
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)

    left, top = _MARGIN, _MARGIN + _TITLE
    _field(draw, left, top, _LARGE, "all classes")
    _dots(draw, left, top, _LARGE, found["diagram"], _BEFORE)
    text = [("as stored", found["calibration_error"], _BEFORE)]
    scaled = found["temperature_and_offset"]
    if "diagram_after" in scaled:
        _dots(draw, left, top, _LARGE, scaled["diagram_after"], _AFTER)
        text.append(("after temperature and offset", scaled["calibration_error_after"], _AFTER))
    for number, (what, error, colour) in enumerate(text):
        y = top + 20 + 50 * number
        draw.ellipse((left + _LARGE + 40, y + 5, left + _LARGE + 50, y + 15), fill=colour)
        draw.text((left + _LARGE + 60, y), what, _INK, ImageFont.load_default(17))
        draw.text((left + _LARGE + 60, y + 22), f"calibration error {error:.3f}", _QUIET, ImageFont.load_default(14))
    lines = ["across: confidence; up: share that is right", "a dot is a group of pixels, all groups equally large"]
    lines += ["shaded: dropped by the class's threshold", f"the {len(classes)} classes with the most pixels"]
    for number, line in enumerate(lines):
        y = top + _LARGE - 24 * (len(lines) - number)
        draw.text((left + _LARGE + 40, y), line, _QUIET, ImageFont.load_default(14))

    for number, (name, each) in enumerate(classes):
        left = _MARGIN + number % _COLUMNS * (_SMALL + _MARGIN)
        top = 2 * _MARGIN + _TITLE + _LARGE + number // _COLUMNS * (_SMALL + _TITLE + _MARGIN) + _TITLE
        value = values[name]
        _field(draw, left, top, _SMALL, name, value)
        _dots(draw, left, top, _SMALL, each["diagram"], _BEFORE)
        shown = "keeps none" if value >= KEEP_NONE else f"keeps from {value:.2f}"
        draw.text((left, top - 18), shown, _QUIET, ImageFont.load_default(13))
    return sheet


def _field(draw: ImageDraw.ImageDraw, left: int, top: int, size: int, title: str, threshold: float = 0.0) -> None:
    draw.rectangle((left, top, left + size, top + size), fill=_FIELD)
    if threshold > 0:
        draw.rectangle((left, top, left + size * min(threshold, 1), top + size), fill=_DROPPED)
    draw.line((left, top + size, left + size, top), fill=_LINE, width=2)
    draw.rectangle((left, top, left + size, top + size), outline=_LINE)
    small = ImageFont.load_default(12)
    for tick in (0.0, 0.5, 1.0):
        draw.text((left + size * tick, top + size + 4), f"{tick:g}", _QUIET, small, anchor="ma")
        draw.text((left - 6, top + size * (1 - tick)), f"{tick:g}", _QUIET, small, anchor="rm")
    font = ImageFont.load_default(17)
    while draw.textlength(title, font) > size and len(title) > 4:
        title = title.rstrip("…")[:-1] + "…"
    draw.text((left, top - 40), title, _INK, font)


def _dots(
    draw: ImageDraw.ImageDraw, left: int, top: int, size: int, diagram: Sequence[Mapping[str, float]], colour: str
) -> None:
    points = [(left + size * group["confidence"], top + size * (1 - group["precision"])) for group in diagram]
    radius = 5 if size == _LARGE else 3
    draw.line(points, fill=colour, width=2)
    for x, y in points:
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _pixels(diagram: Sequence[Mapping[str, float]]) -> float:
    return sum(group["pixels"] for group in diagram)
