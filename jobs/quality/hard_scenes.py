"""Drawn scenes that are hard at their borders: small objects, thin ones, texture. Labels are exact."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from proxyclip.demo.paint import Light, noise
from proxyclip.demo.scenes import (
    CLASSES,
    OBJECTS,
    Item,
    Scene,
    describe,
    develop,
    draw_backdrop,
    draw_object,
    draw_scene,
)

Kind = Literal["plain", "small", "thin", "textured"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_TEXTURED = ("zebra", "ladybird", "watermelon", "tyre", "sunflower", "beach ball", "leaf")


def hard_scene(kind: Kind, seed: int, size_hw: tuple[int, int]) -> Scene:
    """Draw a scene of a seed.

    plain: as the demo's scenes. small: a dozen objects of a third of the usual size. thin: objects squeezed to a
    quarter of their height. textured: objects with inner edges, and a fine texture over everything that does not end
    at the borders of objects.
    """
    if kind == "plain":
        return draw_scene(seed, size_hw)
    height, width = size_hw
    rng = np.random.default_rng((KINDS.index(kind), seed))
    light = Light(0.4, -0.55, 0.73)
    image, mask, _, grounds = draw_backdrop(height, width, rng)
    for item in _items(kind, size_hw, rng):
        image = draw_object(item, image, mask, light, rng)
    if kind == "textured":
        ys, xs = np.mgrid[0:height, 0:width].astype(np.float32) / min(size_hw)
        grain = noise(rng, xs * 45, ys * 45, 2) - 0.5
        image = image * (1 + 0.7 * grain)[..., None]
    names = sorted(CLASSES[index] for index in np.unique(mask) if CLASSES[index] in OBJECTS)
    return Scene(develop(image, light, rng), mask, describe(grounds, names))


def _items(kind: Kind, size_hw: tuple[int, int], rng: np.random.Generator) -> list[Item]:
    """Objects anywhere in the image that hardly overlap."""
    unit = min(size_hw)
    tall, wide = size_hw[0] / unit, size_hw[1] / unit
    most, low, high = {"small": (12, 0.035, 0.08), "thin": (6, 0.12, 0.24), "textured": (5, 0.11, 0.24)}[kind]
    names, thin = (_TEXTURED if kind == "textured" else OBJECTS), (0.25 if kind == "thin" else 1.0)
    items: list[Item] = []
    for _ in range(100):
        if len(items) == most:
            break
        half = float(rng.uniform(low, high))
        x, y = float(rng.uniform(0.5 * half, wide - 0.5 * half)), float(rng.uniform(0.5 * half, tall - 0.5 * half))
        if all((x - other.x) ** 2 + (y - other.y) ** 2 > (0.8 * (half + other.half)) ** 2 for other in items):
            items.append(Item(x, y, half, str(rng.choice(names)), thin))
    return items
