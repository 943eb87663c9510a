"""What painters use: colours, light, noise and simple shapes, as functions of coordinates (H, W)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Light:
    """The direction towards the light, about of length 1: x to the right, y down, z out of the picture."""

    x: float
    y: float
    z: float

    def turned(self, angle: float, flip: float) -> Light:
        """The light as seen by an object that is turned by `angle` radians, and mirrored if flip is -1."""
        x, y = self.x * flip, self.y
        return Light(x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle), self.z)


def rgb(red: float, green: float, blue: float) -> Array:
    return np.array([red, green, blue], np.float32)


def mix(a: Array, b: Array, weight: Array) -> Array:
    """Blend colours: a where weight (H, W) is 0, b where it is 1. a and b: (3,) or (H, W, 3)."""
    return a + (b - a) * weight[..., None]


def step(low: float, high: float, x: Array) -> Array:
    """0 below low, 1 above high, smooth in between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def noise(rng: np.random.Generator, x: Array, y: Array, octaves: int = 3) -> Array:
    """Smooth noise in 0..1: about one bump per unit; each further octave has twice the frequency."""
    total, weight = np.zeros_like(x), 0.0
    for octave in range(octaves):
        lattice = rng.random((64, 64), np.float32)
        xs, ys = x * 2**octave + 7.3, y * 2**octave + 3.1
        column, row = np.floor(xs).astype(np.int32), np.floor(ys).astype(np.int32)
        fx, fy = xs - column, ys - row
        fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
        left, right, top, bottom = column & 63, (column + 1) & 63, row & 63, (row + 1) & 63
        upper = lattice[top, left] * (1 - fx) + lattice[top, right] * fx
        lower = lattice[bottom, left] * (1 - fx) + lattice[bottom, right] * fx
        total += (upper * (1 - fy) + lower * fy) * 0.5**octave
        weight += 0.5**octave
    return total / weight


def inside(u: Array, v: Array, x: float, y: float, a: float, b: float) -> Mask:
    """An ellipse with centre (x, y) and half axes a and b."""
    return ((u - x) / a) ** 2 + ((v - y) / b) ** 2 < 1


def limb(u: Array, v: Array, start: tuple[float, float], end: tuple[float, float], radius: float) -> Mask:
    """A thick line with round ends."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    t = np.clip(((u - start[0]) * dx + (v - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return (u - start[0] - t * dx) ** 2 + (v - start[1] - t * dy) ** 2 < radius**2


def rounded(colour: Array, u: Array, v: Array, light: Light, gloss: float) -> Array:
    """Shade a colour like a ball of radius 1; gloss is the strength of its highlight."""
    z = np.sqrt(np.clip(1 - u * u - v * v, 0, 1))
    diffuse = np.clip(u * light.x + v * light.y + z * light.z, 0, 1)
    half = np.array([light.x, light.y, light.z + 1]) / np.sqrt(2 + 2 * light.z)
    shine = np.clip(u * half[0] + v * half[1] + z * half[2], 0, 1) ** 40
    shaded: Array = colour * (0.42 + 0.68 * diffuse)[..., None] + (gloss * shine)[..., None]
    return shaded
