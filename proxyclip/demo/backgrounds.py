"""The six backgrounds, each with its own colour and texture.

A painter takes ground coordinates x, y (1 is the image's short side, seen from near) and returns colours (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from proxyclip.demo.paint import Array, mix, noise, rgb, step


def _sky(x: Array, y: Array, rng: np.random.Generator) -> Array:
    zenith = mix(rgb(0.20, 0.45, 0.85), rgb(0.36, 0.58, 0.90), np.float32(rng.random()) * np.ones_like(x))
    blue = mix(zenith, rgb(0.78, 0.89, 0.98), np.clip(y / rng.uniform(0.6, 1.1), 0, 1))
    clouds, clear = noise(rng, x * 2.2, y * 4.5, 5), float(rng.uniform(0.47, 0.6))
    return mix(blue, rgb(0.99, 0.99, 1.0), 0.92 * step(clear, clear + 0.22, clouds))


def _grass(x: Array, y: Array, rng: np.random.Generator) -> Array:
    blades = noise(rng, x * 75, y * 16, 2)
    tufts = noise(rng, x * 9, y * 9, 3)
    base = mix(rgb(0.13, 0.32, 0.07), rgb(0.42, 0.66, 0.20), step(0.15, 0.85, 0.65 * blades + 0.35 * tufts))
    return mix(base, rgb(0.62, 0.80, 0.32), 0.7 * step(0.68, 0.9, blades))


def _water(x: Array, y: Array, rng: np.random.Generator) -> Array:
    swell = noise(rng, x * 3, y * 7, 3)
    ripples = 0.5 + 0.5 * np.sin(46 * y + 9 * swell + 5 * noise(rng, x * 7, y * 9, 2))
    base = mix(rgb(0.04, 0.30, 0.42), rgb(0.16, 0.58, 0.66), 0.55 * swell + 0.45 * ripples)
    return mix(base, rgb(0.80, 0.95, 0.97), 0.75 * step(0.86, 1.0, ripples) * step(0.42, 0.7, swell))


def _sand(x: Array, y: Array, rng: np.random.Generator) -> Array:
    grain = noise(rng, x * 110, y * 110, 2)
    dunes = 0.5 + 0.5 * np.sin(20 * y + 8 * noise(rng, x * 2, y * 3, 2))
    base = mix(rgb(0.76, 0.63, 0.42), rgb(0.94, 0.85, 0.64), 0.55 * grain + 0.45 * dunes)
    return mix(base, rgb(0.50, 0.40, 0.27), 0.6 * step(0.80, 0.92, grain))


def _brick(x: Array, y: Array, rng: np.random.Generator) -> Array:
    height = rng.uniform(0.075, 0.11)
    row = np.floor(y / height)
    along = x / (2.3 * height) + 0.5 * (row % 2)
    tint = rng.random((97, 89), np.float32)[row.astype(np.int32) % 97, np.floor(along).astype(np.int32) % 89]
    base = mix(rgb(0.50, 0.19, 0.13), rgb(0.76, 0.38, 0.26), 0.6 * tint + 0.4 * noise(rng, x * 40, y * 40, 3))
    to_joint = np.minimum(0.5 - np.abs(y / height % 1 - 0.5), 2.3 * (0.5 - np.abs(along % 1 - 0.5)))
    mortar = mix(rgb(0.70, 0.67, 0.61), rgb(0.82, 0.79, 0.73), noise(rng, x * 60, y * 60, 2))
    return mix(mortar, base * (0.82 + 0.18 * step(0.05, 0.25, to_joint))[..., None], step(0.035, 0.085, to_joint))


def _wood(x: Array, y: Array, rng: np.random.Generator) -> Array:
    width = rng.uniform(0.13, 0.2)
    plank = np.floor(x / width)
    tint = rng.random(101, np.float32)[plank.astype(np.int32) % 101]
    grain = noise(rng, x * 46 + 13 * tint, y * 2.5 + 17 * tint, 3)
    rings = 0.5 + 0.5 * np.sin(70 * x + 14 * noise(rng, x * 5 + 9 * tint, y * 1.6, 2))
    base = mix(rgb(0.40, 0.25, 0.14), rgb(0.70, 0.49, 0.30), 0.45 * grain + 0.2 * rings + 0.35 * tint)
    return base * (0.35 + 0.65 * step(0.01, 0.07, 0.5 - np.abs(x / width % 1 - 0.5)))[..., None]


BACKGROUND_PAINTERS: dict[str, Callable[[Array, Array, np.random.Generator], Array]] = {
    "sky": _sky,
    "grass": _grass,
    "water": _water,
    "sand": _sand,
    "brick": _brick,
    "wood": _wood,
}
