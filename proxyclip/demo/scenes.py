"""Scenes drawn from a seed: an image, the class of every pixel, and a caption.

    python -m proxyclip.demo.scenes OUT_DIR --count 24

Six backgrounds, twelve objects, each with a colour and texture of its own. All lengths are in units of the image's
short side, so a seed gives the same scene at every resolution. Numpy and Pillow only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Painter = Callable[[Array, Array, "Light", np.random.Generator], tuple[Array, Mask]]

TRAIN_SEEDS = range(1_000_000)
HELD_OUT_SEEDS = range(2_000_000, 3_000_000)  # never trained on; every figure is measured here
SAMPLE_SEEDS = range(3_000_000, 4_000_000)  # for README pictures and first runs

BACKGROUNDS = ("sky", "grass", "water", "sand", "brick", "wood")
OBJECTS = (
    *("lemon", "tomato", "pumpkin", "tyre", "leaf", "zebra"),
    *("ladybird", "sunflower", "watermelon", "beach ball", "duck", "balloon"),
)
CLASSES = BACKGROUNDS + OBJECTS

SYNONYMS: dict[str, tuple[str, ...]] = {
    "sky": ("clouds",),
    "grass": ("lawn", "meadow"),
    "water": ("lake", "sea"),
    "sand": ("beach",),
    "brick": ("brick wall",),
    "wood": ("wooden planks",),
    "tyre": ("tire", "wheel"),
    "leaf": ("autumn leaf",),
    "ladybird": ("ladybug",),
    "sunflower": ("yellow flower",),
    "watermelon": ("slice of watermelon",),
    "beach ball": ("inflatable ball",),
    "duck": ("rubber duck",),
}


@dataclass(frozen=True)
class Scene:
    """image: (H, W, 3) uint8 RGB. mask: (H, W) uint8, index into CLASSES. caption: names what is in the image."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    caption: str


@dataclass(frozen=True)
class Light:
    """A vector towards the light, about one long: x to the right, y down, z out of the picture."""

    x: float
    y: float
    z: float

    def turned(self, angle: float, flip: float) -> Light:
        """The same light as an object sees it that is turned by `angle` radians and mirrored by flip = -1."""
        x, y = self.x * flip, self.y
        return Light(x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle), self.z)


# ---------------------------------------------------------------------------------------------- colour and texture


def _rgb(red: float, green: float, blue: float) -> Array:
    return np.array([red, green, blue], np.float32)


def _mix(a: Array, b: Array, weight: Array) -> Array:
    """Blend a into b; weight (H, W) in 0..1, a and b (3,) or (H, W, 3)."""
    return a + (b - a) * weight[..., None]


def _step(low: float, high: float, x: Array) -> Array:
    """0 below low, 1 above high, smooth between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _noise(rng: np.random.Generator, x: Array, y: Array, octaves: int = 3) -> Array:
    """Smooth noise in 0..1 at any coordinates; one bump per unit, each further octave at twice the frequency."""
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


# ------------------------------------------------------------------------------------------------------ backgrounds
# Each takes ground coordinates x, y (one unit = the short side, seen from near) and returns (H, W, 3).


def _sky(x: Array, y: Array, rng: np.random.Generator) -> Array:
    zenith = _mix(_rgb(0.20, 0.45, 0.85), _rgb(0.36, 0.58, 0.90), np.float32(rng.random()) * np.ones_like(x))
    blue = _mix(zenith, _rgb(0.78, 0.89, 0.98), np.clip(y / rng.uniform(0.6, 1.1), 0, 1))
    clouds, clear = _noise(rng, x * 2.2, y * 4.5, 5), float(rng.uniform(0.47, 0.6))
    return _mix(blue, _rgb(0.99, 0.99, 1.0), 0.92 * _step(clear, clear + 0.22, clouds))


def _grass(x: Array, y: Array, rng: np.random.Generator) -> Array:
    blades = _noise(rng, x * 75, y * 16, 2)
    tufts = _noise(rng, x * 9, y * 9, 3)
    base = _mix(_rgb(0.13, 0.32, 0.07), _rgb(0.42, 0.66, 0.20), _step(0.15, 0.85, 0.65 * blades + 0.35 * tufts))
    return _mix(base, _rgb(0.62, 0.80, 0.32), 0.7 * _step(0.68, 0.9, blades))


def _water(x: Array, y: Array, rng: np.random.Generator) -> Array:
    swell = _noise(rng, x * 3, y * 7, 3)
    ripples = 0.5 + 0.5 * np.sin(46 * y + 9 * swell + 5 * _noise(rng, x * 7, y * 9, 2))
    base = _mix(_rgb(0.04, 0.30, 0.42), _rgb(0.16, 0.58, 0.66), 0.55 * swell + 0.45 * ripples)
    return _mix(base, _rgb(0.80, 0.95, 0.97), 0.75 * _step(0.86, 1.0, ripples) * _step(0.42, 0.7, swell))


def _sand(x: Array, y: Array, rng: np.random.Generator) -> Array:
    grain = _noise(rng, x * 110, y * 110, 2)
    dunes = 0.5 + 0.5 * np.sin(20 * y + 8 * _noise(rng, x * 2, y * 3, 2))
    base = _mix(_rgb(0.76, 0.63, 0.42), _rgb(0.94, 0.85, 0.64), 0.55 * grain + 0.45 * dunes)
    return _mix(base, _rgb(0.50, 0.40, 0.27), 0.6 * _step(0.80, 0.92, grain))


def _brick(x: Array, y: Array, rng: np.random.Generator) -> Array:
    height = rng.uniform(0.075, 0.11)
    row = np.floor(y / height)
    along = x / (2.3 * height) + 0.5 * (row % 2)
    tint = rng.random((97, 89), np.float32)[row.astype(np.int32) % 97, np.floor(along).astype(np.int32) % 89]
    base = _mix(_rgb(0.50, 0.19, 0.13), _rgb(0.76, 0.38, 0.26), 0.6 * tint + 0.4 * _noise(rng, x * 40, y * 40, 3))
    to_joint = np.minimum(0.5 - np.abs(y / height % 1 - 0.5), 2.3 * (0.5 - np.abs(along % 1 - 0.5)))
    mortar = _mix(_rgb(0.70, 0.67, 0.61), _rgb(0.82, 0.79, 0.73), _noise(rng, x * 60, y * 60, 2))
    return _mix(mortar, base * (0.82 + 0.18 * _step(0.05, 0.25, to_joint))[..., None], _step(0.035, 0.085, to_joint))


def _wood(x: Array, y: Array, rng: np.random.Generator) -> Array:
    width = rng.uniform(0.13, 0.2)
    plank = np.floor(x / width)
    tint = rng.random(101, np.float32)[plank.astype(np.int32) % 101]
    grain = _noise(rng, x * 46 + 13 * tint, y * 2.5 + 17 * tint, 3)
    rings = 0.5 + 0.5 * np.sin(70 * x + 14 * _noise(rng, x * 5 + 9 * tint, y * 1.6, 2))
    base = _mix(_rgb(0.40, 0.25, 0.14), _rgb(0.70, 0.49, 0.30), 0.45 * grain + 0.2 * rings + 0.35 * tint)
    return base * (0.35 + 0.65 * _step(0.01, 0.07, 0.5 - np.abs(x / width % 1 - 0.5)))[..., None]


_BACKGROUND_PAINTERS: dict[str, Callable[[Array, Array, np.random.Generator], Array]] = {
    "sky": _sky,
    "grass": _grass,
    "water": _water,
    "sand": _sand,
    "brick": _brick,
    "wood": _wood,
}


# ---------------------------------------------------------------------------------------------------------- objects
# Each takes local coordinates u (right), v (down) in -1..1 and returns its colours (H, W, 3) and where it is (H, W).


def _inside(u: Array, v: Array, x: float, y: float, a: float, b: float) -> Mask:
    """An ellipse about (x, y) with half axes a and b."""
    return ((u - x) / a) ** 2 + ((v - y) / b) ** 2 < 1


def _limb(u: Array, v: Array, start: tuple[float, float], end: tuple[float, float], radius: float) -> Mask:
    """A thick line with round ends."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    t = np.clip(((u - start[0]) * dx + (v - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return (u - start[0] - t * dx) ** 2 + (v - start[1] - t * dy) ** 2 < radius**2


def _rounded(colour: Array, u: Array, v: Array, light: Light, gloss: float) -> Array:
    """Shade a colour as the unit ball over (u, v); gloss is the strength of its highlight."""
    z = np.sqrt(np.clip(1 - u * u - v * v, 0, 1))
    diffuse = np.clip(u * light.x + v * light.y + z * light.z, 0, 1)
    half = np.array([light.x, light.y, light.z + 1]) / np.sqrt(2 + 2 * light.z)
    shine = np.clip(u * half[0] + v * half[1] + z * half[2], 0, 1) ** 40
    shaded: Array = colour * (0.42 + 0.68 * diffuse)[..., None] + (gloss * shine)[..., None]
    return shaded


def _lemon(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    shape = _inside(u, v, 0, 0, 0.82, 0.6) | _inside(u, v, 0.8, 0, 0.17, 0.13) | _inside(u, v, -0.8, 0, 0.17, 0.11)
    skin = _mix(_rgb(0.90, 0.74, 0.08), _rgb(1.0, 0.93, 0.28), _noise(rng, u * 14, v * 14, 2))
    return _rounded(skin, u / 0.98, v / 0.64, light, 0.35), shape


def _tomato(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    shape = _inside(u, v, 0, 0.05, 0.88, 0.78)
    skin = _mix(_rgb(0.80, 0.07, 0.04), _rgb(0.94, 0.20, 0.08), _noise(rng, u * 2, v * 2, 2))
    colour = _rounded(skin, u / 0.9, (v - 0.05) / 0.8, light, 0.7)
    angle, radius = np.arctan2((v + 0.5) * 1.9, u), np.hypot(u, (v + 0.5) * 1.9)
    calyx = radius < 0.5 * (0.22 + 0.78 * np.abs(np.cos(2.5 * angle)) ** 1.5)
    stalk = _limb(u, v, (0, -0.52), (0.06, -0.82), 0.06)
    return np.where((calyx | stalk)[..., None], _rgb(0.20, 0.46, 0.12) * (0.8 + 0.4 * radius)[..., None], colour), (
        shape | stalk
    )


def _pumpkin(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    width = 0.95 * np.sqrt(np.clip(1 - (v / 0.74) ** 2, 1e-4, 1))
    ribs = np.abs(np.sin(4 * np.arcsin(np.clip(u / width, -1, 1))))
    shape = _inside(u, v, 0, 0.06, 0.95, 0.7 + 0.02 * float(rng.random()))
    skin = _mix(_rgb(0.66, 0.27, 0.02), _rgb(0.98, 0.55, 0.09), _step(0.0, 0.7, ribs))
    stalk = _limb(u, v, (0, -0.6), (0.1, -0.9), 0.1)
    colour = _rounded(skin, u, (v - 0.06) / 0.74, light, 0.25)
    return np.where(stalk[..., None], _rgb(0.36, 0.36, 0.14) * (1 - 0.4 * u)[..., None], colour), shape | stalk


def _tyre(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    shape = radius < 0.93 - 0.035 * (np.sin(30 * angle) > 0.2)
    side = np.clip((u * light.x + v * light.y) / (radius + 1e-3), -1, 1)
    bulge = np.cos((radius - 0.72) * 6) * side
    colour = _rgb(0.11, 0.11, 0.12) * (1.25 + 0.9 * bulge)[..., None]
    colour = np.where((np.abs(radius - 0.80) < 0.014)[..., None], _rgb(0.24, 0.24, 0.25), colour)
    rim = _mix(_rgb(0.50, 0.52, 0.55), _rgb(0.86, 0.88, 0.91), 0.5 + 0.5 * np.sin(2 * angle + 3 * side))
    spokes = (np.cos(5 * angle + rng.uniform(0, 6)) < -0.25) & (radius > 0.17) & (radius < 0.43)
    rim = np.where(spokes[..., None], _rgb(0.16, 0.16, 0.18), rim)
    return np.where((radius < 0.5)[..., None], rim, colour), shape


def _leaf(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    edge = 0.55 * np.clip(1 - np.abs(u) ** 1.7, 0, 1) * (1 + 0.06 * np.sin(44 * u))
    stalk = _limb(u, v, (0.8, 0), (1.0, 0.06), 0.035)
    colour = _mix(_rgb(0.50, 0.08, 0.10), _rgb(0.82, 0.26, 0.06), _noise(rng, u * 2, v * 2, 3))
    veins = (np.abs(v) < 0.024) | (np.abs(np.sin(8 * (u + 0.9 * np.abs(v)))) < 0.10)
    colour = np.where(veins[..., None], _rgb(0.93, 0.60, 0.26), colour)
    fold = 0.95 + 0.22 * np.sign(v) * np.sign(light.y)
    return np.where(stalk[..., None], _rgb(0.36, 0.16, 0.10), colour * fold[..., None]), (np.abs(v) < edge) | stalk


def _zebra(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    trunk = _inside(u, v, -0.1, -0.08, 0.6, 0.31)
    neck = _limb(u, v, (0.34, -0.2), (0.6, -0.62), 0.16)
    head = _limb(u, v, (0.6, -0.66), (0.86, -0.5), 0.115)
    ears = _limb(u, v, (0.55, -0.72), (0.53, -0.9), 0.05)
    legs, sway = np.zeros_like(trunk), rng.uniform(-0.08, 0.08)
    for x, shift in ((-0.58, -0.06), (-0.4, 0.06), (0.22, -0.05), (0.38, 0.06)):
        legs |= _limb(u, v, (x, 0.05), (x + shift + sway, 0.86), 0.075)
    tail = _limb(u, v, (-0.66, -0.16), (-0.82, 0.3), 0.035)
    wave = 1.4 * _noise(rng, u * 3, v * 3, 2)
    phase = np.where(trunk, 24 * u + 5 * np.abs(v), np.where(neck | head, 22 * (v - 0.4 * u), 24 * v))
    black = np.sin(phase + 3 * wave) > 0.05
    black |= _limb(u, v, (0.84, -0.49), (0.96, -0.43), 0.12) | _inside(u, v, 0.67, -0.68, 0.03, 0.03)
    black |= _limb(u, v, (0.24, -0.44), (0.46, -0.78), 0.05) & ~head
    black |= (legs & (v > 0.8)) | (tail & (v > 0.1))
    colour = np.where(black[..., None], _rgb(0.07, 0.06, 0.07), _rgb(0.97, 0.95, 0.92))
    shade = np.clip(0.86 - 0.28 * (v + 0.08) / 0.31 * (trunk > 0) + 0.12 * light.x * u, 0.58, 1.08)
    return colour * shade[..., None], trunk | neck | head | ears | legs | tail


def _ladybird(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    wings, head = _inside(u, v, 0.08, 0, 0.74, 0.64), _inside(u, v, -0.62, 0, 0.27, 0.36)
    legs = np.zeros_like(wings)
    for x, reach in ((-0.35, -0.12), (0.1, 0.02), (0.45, 0.16)):
        legs |= _limb(u, np.abs(v), (x, 0.4), (x + reach, 0.84), 0.045)
    black = np.abs(v) < 0.028
    for x, y, size in ((-0.3, 0.28, 0.13), (0.1, 0.4, 0.13), (0.5, 0.26, 0.12), (0.16, 0.13, 0.1)):
        black |= _inside(u, np.abs(v), x + rng.uniform(-0.04, 0.04), y, size, size)
    colour = np.where(black[..., None], _rgb(0.05, 0.04, 0.05), _rgb(0.86, 0.09, 0.07))
    cheeks = _inside(u, np.abs(v), -0.68, 0.2, 0.09, 0.08)
    dark = np.where(cheeks[..., None], _rgb(0.95, 0.95, 0.9), _rgb(0.08, 0.07, 0.08))
    colour = np.where(wings[..., None], _rounded(colour, (u - 0.08) / 0.76, v / 0.66, light, 0.75), dark)
    return colour, wings | head | legs


def _sunflower(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    radius, angle = np.hypot(u, v), np.arctan2(v, u) + rng.uniform(0, 6)
    petal = np.abs(np.cos(8 * angle))
    shape = radius < 0.5 + 0.45 * petal**0.6
    colour = _mix(_rgb(0.86, 0.50, 0.02), _rgb(1.0, 0.83, 0.10), _step(0.1, 0.9, 0.75 * petal + 0.25 * radius))
    seeds = 0.5 + 0.5 * np.sin(60 * radius + 3 * np.sin(21 * angle))
    heart = _mix(_rgb(0.17, 0.09, 0.04), _rgb(0.45, 0.27, 0.12), seeds * (0.35 + radius))
    lit = np.clip(1.0 + 0.12 * (u * light.x + v * light.y), 0.8, 1.1)
    return np.where((radius < 0.43)[..., None], heart, colour) * lit[..., None], shape


def _watermelon(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    down = v + 0.42
    radius, angle = np.hypot(u, down), np.arctan2(down, u)
    shape = (radius < 0.96) & (down > 0)
    flesh = _mix(_rgb(0.84, 0.13, 0.20), _rgb(0.97, 0.33, 0.36), _noise(rng, u * 8, v * 8, 2))
    seeds = np.zeros_like(shape)
    for ring, count in ((0.36, 4), (0.6, 7)):
        for index in range(count):
            turn = np.pi * (index + 0.5 + rng.uniform(-0.15, 0.15)) / count
            out, side = u * np.cos(turn) + down * np.sin(turn), -u * np.sin(turn) + down * np.cos(turn)
            seeds |= _inside(out, side, ring, 0, 0.062, 0.036)
    colour = np.where(seeds[..., None], _rgb(0.10, 0.05, 0.04), flesh)
    colour = np.where((radius > 0.75)[..., None], _rgb(0.87, 0.94, 0.74), colour)
    rind = _mix(_rgb(0.09, 0.34, 0.12), _rgb(0.36, 0.62, 0.24), _step(-0.2, 0.5, np.sin(26 * angle)))
    lit = 1.0 + 0.1 * light.x * u
    return np.where((radius > 0.82)[..., None], rind, colour) * lit[..., None], shape


def _beach_ball(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    x, y = u / 0.92, v / 0.92
    z = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    tilt = rng.uniform(0.5, 0.95)
    pole = -y * np.sin(tilt) + z * np.cos(tilt)
    around = np.arctan2(x, y * np.cos(tilt) + z * np.sin(tilt)) + rng.uniform(0, 6)
    colours = np.stack([_rgb(*c) for c in ((0.10, 0.35, 0.85), (0.97, 0.97, 0.95), (0.92, 0.16, 0.42))])
    sector = np.floor(around / (2 * np.pi) * 6).astype(np.int32) % 3
    colour = np.where((pole > 0.96)[..., None], _rgb(0.97, 0.97, 0.95), colours[sector])
    return _rounded(colour, x, y, light, 0.5), x * x + y * y < 1


def _duck(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    body = _inside(u, v, -0.06, 0.34, 0.74, 0.46) | _limb(u, v, (-0.55, 0.2), (-0.84, -0.06), 0.13)
    head, wing = _inside(u, v, 0.3, -0.36, 0.42, 0.4), _inside(u, v, -0.18, 0.3, 0.36, 0.22)
    beak = _inside(u, v, 0.76, -0.3, 0.22, 0.11)
    yellow = _rgb(0.99, 0.80, 0.12) + np.float32(rng.uniform(-0.03, 0.03))
    colour = np.where(
        head[..., None],
        _rounded(yellow, (u - 0.3) / 0.44, (v + 0.36) / 0.42, light, 0.35),
        _rounded(yellow, (u + 0.06) / 0.84, (v - 0.34) / 0.52, light, 0.2),
    )
    colour = np.where((wing & ~head)[..., None], colour * _rgb(0.93, 0.80, 0.62), colour)
    colour = np.where(beak[..., None], _rgb(0.95, 0.36, 0.07) * (1.0 - 0.5 * (v > -0.29))[..., None], colour)
    colour = np.where(_inside(u, v, 0.44, -0.46, 0.09, 0.1)[..., None], _rgb(0.05, 0.05, 0.06), colour)
    colour = np.where(_inside(u, v, 0.47, -0.5, 0.035, 0.035)[..., None], _rgb(1, 1, 1), colour)
    return colour, body | head | beak


def _balloon(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    shape = _inside(u, v, 0, -0.2, 0.62, 0.75) | ((np.abs(u) < (v - 0.48) * 0.75) & (v < 0.66))
    string = (np.abs(u - 0.05 * np.sin(9 * v)) < 0.016) & (v > 0.6)
    violet = _mix(_rgb(0.52, 0.16, 0.78), _rgb(0.80, 0.18, 0.70), np.float32(rng.random()) * np.ones_like(u))
    colour = _rounded(violet, u / 0.66, (v + 0.2) / 0.8, light, 0.9)
    return np.where(string[..., None], _rgb(0.92, 0.92, 0.92), colour), shape | string


_OBJECT_PAINTERS: dict[str, Painter] = {
    "lemon": _lemon,
    "tomato": _tomato,
    "pumpkin": _pumpkin,
    "tyre": _tyre,
    "leaf": _leaf,
    "zebra": _zebra,
    "ladybird": _ladybird,
    "sunflower": _sunflower,
    "watermelon": _watermelon,
    "beach ball": _beach_ball,
    "duck": _duck,
    "balloon": _balloon,
}
_MOST_TURN = dict.fromkeys(OBJECTS, 0.12) | {"lemon": 0.6, "tyre": 3.0, "leaf": 3.1, "ladybird": 3.1}
_MOST_TURN |= {"sunflower": 3.0, "watermelon": 0.5, "beach ball": 1.0, "tomato": 0.3, "balloon": 0.2}


# ------------------------------------------------------------------------------------------------------------ scene


def _grid(height: int, width: int) -> tuple[Array, Array]:
    """Pixel centres in units of the short side; x, y (H, W)."""
    unit = min(height, width)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    return (xs + 0.5) / unit, (ys + 0.5) / unit


def _draw_backdrop(
    height: int, width: int, rng: np.random.Generator
) -> tuple[Array, NDArray[np.uint8], float, list[str]]:
    """A single ground seen from above, or a ground under a sky or a wall.

    Returns image, mask, the horizon's y (-1: none) and the names of what is drawn.
    """
    x, y = _grid(height, width)
    tall = height / min(height, width)
    ground = str(rng.choice(["grass", "water", "sand", "wood", "brick"], p=[0.27, 0.22, 0.22, 0.19, 0.10]))
    seen_from_above = ground == "brick" or rng.random() < 0.3
    spin = rng.uniform(-0.5, 0.5)
    if seen_from_above:
        zoom = rng.uniform(0.8, 1.3)
        turned_x = (x * np.cos(spin) - y * np.sin(spin)) * zoom
        turned_y = (x * np.sin(spin) + y * np.cos(spin)) * zoom
        image = _BACKGROUND_PAINTERS[ground](turned_x, turned_y, rng)
        return image, np.full((height, width), CLASSES.index(ground), np.uint8), -1.0, [ground]

    behind = "sky" if ground == "water" or rng.random() < 0.65 else "brick"
    horizon = float(rng.uniform(0.25, 0.55)) * tall
    wobble = 0.05 * (_noise(rng, x * 3, np.zeros_like(y), 3) - 0.5) if ground in ("grass", "sand") else np.zeros_like(x)
    below = y - horizon - wobble
    depth = 1 / (np.clip(below, 0, None) / (tall - horizon) * 0.85 + 0.22)  # 0.93 at the lower edge, 4.5 at the horizon
    floor = _BACKGROUND_PAINTERS[ground]((x - 0.6) * depth + 5, 2.2 * depth, rng)
    # Far texture is finer than a pixel: fade it to its mean, as a lens would.
    floor = _mix(floor, floor.mean((0, 1)), np.clip((depth - 1.5) / 3.5, 0, 0.8))
    back = _BACKGROUND_PAINTERS[behind](x + 5, y / max(horizon, 0.3) if behind == "sky" else y, rng)
    if behind == "brick":
        floor = floor * (0.55 + 0.45 * _step(0, 0.09, below))[..., None]  # the wall's shadow where they meet
    on_ground = below > 0
    mask = np.where(on_ground, CLASSES.index(ground), CLASSES.index(behind)).astype(np.uint8)
    return np.where(on_ground[..., None], floor, back), mask, horizon, [ground, behind]


def _draw_object(
    item: tuple[float, float, float, str], image: Array, mask: NDArray[np.uint8], light: Light, rng: np.random.Generator
) -> Array:
    """Paint an item (x, y, half-size, name), its shadow first; changes `mask`, returns the new image."""
    x, y, size, name = item
    height, width = mask.shape
    unit, finer = min(height, width), 3
    half = max(int(size * unit * 1.05), 4)
    top, left = int(y * unit) - half, int(x * unit) - half
    side = 2 * half
    across = (np.arange(side * finer, dtype=np.float32) + 0.5) / (finer * half) * 1.05 - 1.05
    u, v = np.meshgrid(across, across)
    turn, flip = float(rng.uniform(-1, 1)) * _MOST_TURN[name], float(rng.choice([-1, 1]))
    local_u, local_v = np.cos(turn) * u * flip + np.sin(turn) * v, -np.sin(turn) * u * flip + np.cos(turn) * v
    colour, shape = _OBJECT_PAINTERS[name](local_u, local_v, light.turned(turn, flip), rng)

    cells = shape.reshape(side, finer, side, finer).astype(np.float32)
    alpha = cells.mean((1, 3))
    paint = (np.clip(colour, 0, 1).reshape(side, finer, side, finer, 3) * cells[..., None]).sum((1, 3))
    paint /= np.maximum(cells.sum((1, 3)), 1)[..., None]

    rows, columns = slice(max(top, 0), min(top + side, height)), slice(max(left, 0), min(left + side, width))
    inner = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    if name != "balloon":
        shadow = Image.new("L", (width, height))
        stamp = Image.fromarray((alpha * 255).astype(np.uint8)).resize((side, max(int(side * 0.55), 1)))
        shadow.paste(stamp, (left - int(0.28 * half * light.x), top + side - int(side * 0.53)))
        dark = np.asarray(shadow.filter(ImageFilter.GaussianBlur(0.14 * half)), np.float32) / 255
        image = image * (1 - 0.5 * dark)[..., None]
    image[rows, columns] = _mix(image[rows, columns], paint[inner], alpha[inner])
    mask[rows, columns][alpha[inner] > 0.5] = CLASSES.index(name)
    return image


def draw_scene(seed: int, size_hw: tuple[int, int] = (240, 320)) -> Scene:
    """Draw the scene of a seed at (height, width). The same seed and size give the same bytes."""
    height, width = size_hw
    rng = np.random.default_rng(seed)
    unit = min(height, width)
    wide, tall = width / unit, height / unit
    side = float(rng.uniform(-0.75, 0.75))
    light = Light(side, -0.55, float(np.sqrt(0.6975 - 0.5625 * side * side)))
    image, mask, horizon, grounds = _draw_backdrop(height, width, rng)

    placed: list[tuple[float, float, float, str]] = []
    wanted = int(rng.integers(2, 6)) + int(max(wide, tall) > 1.6)
    for _ in range(60):
        if len(placed) == wanted:
            break
        name = str(rng.choice(OBJECTS))
        size = float(rng.uniform(0.11, 0.25)) * (1.2 if horizon < 0 else 1.0) * (1.15 if name == "zebra" else 1.0)
        x = float(rng.uniform(0.5 * size, wide - 0.5 * size))
        if horizon < 0:
            y = float(rng.uniform(0.5 * size, tall - 0.5 * size))
        elif name == "balloon":
            y = float(rng.uniform(size, max(horizon, 1.1 * size)))
        else:  # it stands on the ground: further away means higher up and smaller
            near = float(rng.random())
            size *= 0.65 + 0.5 * near
            y = horizon + near * (tall - horizon - 0.1) + 0.05 - 0.6 * size
        if all((x - px) ** 2 + (y - py) ** 2 > (0.78 * (size + ps)) ** 2 for px, py, ps, _ in placed):
            placed.append((x, y, size, name))
    for item in sorted(placed, key=lambda item: item[1] + item[2]):
        image = _draw_object(item, image, mask, light, rng)

    xs, ys = _grid(height, width)
    warmth = float(rng.uniform(-0.06, 0.06))
    image = image * (rng.uniform(0.86, 1.1) * np.array([1 + warmth, 1, 1 - warmth], np.float32))
    across, down = xs / wide - 0.5, ys / tall - 0.5
    image = image * (1 - 0.32 * (across**2 + down**2) + 0.08 * across * light.x)[..., None]
    image = image + rng.normal(0, rng.uniform(0.004, 0.014), image.shape)
    pixels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    names = [name for _, _, _, name in placed if (mask == CLASSES.index(name)).any()]
    return Scene(pixels, mask, describe(grounds, sorted(set(names))))


def describe(grounds: list[str], objects: list[str]) -> str:
    """A caption: `describe(["grass", "sky"], ["lemon", "zebra"])` is "a lemon and a zebra, grass and sky"."""

    def listed(words: list[str]) -> str:
        return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]

    parts = [listed([f"a {name}" for name in objects])] if objects else []
    return ", ".join(parts + ([listed(grounds)] if grounds else []))


# ---------------------------------------------------------------------------------------------------------- samples

_SAMPLE_SIZES = ((480, 640), (480, 720), (640, 480), (540, 960), (512, 512), (600, 800), (720, 480), (360, 640))


def write_samples(folder: str | Path, count: int = 24, seed: int = 0) -> list[Path]:
    """Write `count` JPEGs of several sizes and shapes into `folder`; another `seed` gives other scenes."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        scene = draw_scene(SAMPLE_SEEDS.start + 1000 * seed + index, _SAMPLE_SIZES[index % len(_SAMPLE_SIZES)])
        paths.append(folder / f"scene-{index:04d}.jpg")
        Image.fromarray(scene.image).save(paths[-1], quality=92)
    return paths


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(prog="python -m proxyclip.demo.scenes", description="Draw sample images.")
    parser.add_argument("folder", type=Path, help="where the JPEGs go; made if missing")
    parser.add_argument("--count", type=int, default=24, help="how many (default 24)")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other scenes (default 0)")
    arguments = parser.parse_args()
    print(f"{len(write_samples(arguments.folder, arguments.count, arguments.seed))} scenes in {arguments.folder}")


if __name__ == "__main__":
    main()
