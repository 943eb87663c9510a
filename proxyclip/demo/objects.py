"""The twelve objects, each with its own shape, colour and texture.

A painter takes local coordinates u (right) and v (down) in -1..1 and the light as the object sees it. It returns the
object's colours (H, W, 3) and where the object is (H, W).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from proxyclip.demo.paint import Array, Light, Mask, inside, limb, mix, noise, rgb, rounded, step

Painter = Callable[[Array, Array, Light, np.random.Generator], tuple[Array, Mask]]


def _lemon(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    shape = inside(u, v, 0, 0, 0.82, 0.6) | inside(u, v, 0.8, 0, 0.17, 0.13) | inside(u, v, -0.8, 0, 0.17, 0.11)
    skin = mix(rgb(0.90, 0.74, 0.08), rgb(1.0, 0.93, 0.28), noise(rng, u * 14, v * 14, 2))
    return rounded(skin, u / 0.98, v / 0.64, light, 0.35), shape


def _tomato(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    shape = inside(u, v, 0, 0.05, 0.88, 0.78)
    skin = mix(rgb(0.80, 0.07, 0.04), rgb(0.94, 0.20, 0.08), noise(rng, u * 2, v * 2, 2))
    colour = rounded(skin, u / 0.9, (v - 0.05) / 0.8, light, 0.7)
    angle, radius = np.arctan2((v + 0.5) * 1.9, u), np.hypot(u, (v + 0.5) * 1.9)
    calyx = radius < 0.5 * (0.22 + 0.78 * np.abs(np.cos(2.5 * angle)) ** 1.5)
    stalk = limb(u, v, (0, -0.52), (0.06, -0.82), 0.06)
    return np.where((calyx | stalk)[..., None], rgb(0.20, 0.46, 0.12) * (0.8 + 0.4 * radius)[..., None], colour), (
        shape | stalk
    )


def _pumpkin(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    width = 0.95 * np.sqrt(np.clip(1 - (v / 0.74) ** 2, 1e-4, 1))
    ribs = np.abs(np.sin(4 * np.arcsin(np.clip(u / width, -1, 1))))
    shape = inside(u, v, 0, 0.06, 0.95, 0.7 + 0.02 * float(rng.random()))
    skin = mix(rgb(0.66, 0.27, 0.02), rgb(0.98, 0.55, 0.09), step(0.0, 0.7, ribs))
    stalk = limb(u, v, (0, -0.6), (0.1, -0.9), 0.1)
    colour = rounded(skin, u, (v - 0.06) / 0.74, light, 0.25)
    return np.where(stalk[..., None], rgb(0.36, 0.36, 0.14) * (1 - 0.4 * u)[..., None], colour), shape | stalk


def _tyre(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    shape = radius < 0.93 - 0.035 * (np.sin(30 * angle) > 0.2)
    side = np.clip((u * light.x + v * light.y) / (radius + 1e-3), -1, 1)
    bulge = np.cos((radius - 0.72) * 6) * side
    colour = rgb(0.11, 0.11, 0.12) * (1.25 + 0.9 * bulge)[..., None]
    colour = np.where((np.abs(radius - 0.80) < 0.014)[..., None], rgb(0.24, 0.24, 0.25), colour)
    rim = mix(rgb(0.50, 0.52, 0.55), rgb(0.86, 0.88, 0.91), 0.5 + 0.5 * np.sin(2 * angle + 3 * side))
    spokes = (np.cos(5 * angle + rng.uniform(0, 6)) < -0.25) & (radius > 0.17) & (radius < 0.43)
    rim = np.where(spokes[..., None], rgb(0.16, 0.16, 0.18), rim)
    return np.where((radius < 0.5)[..., None], rim, colour), shape


def _leaf(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    edge = 0.55 * np.clip(1 - np.abs(u) ** 1.7, 0, 1) * (1 + 0.06 * np.sin(44 * u))
    stalk = limb(u, v, (0.8, 0), (1.0, 0.06), 0.035)
    colour = mix(rgb(0.50, 0.08, 0.10), rgb(0.82, 0.26, 0.06), noise(rng, u * 2, v * 2, 3))
    veins = (np.abs(v) < 0.024) | (np.abs(np.sin(8 * (u + 0.9 * np.abs(v)))) < 0.10)
    colour = np.where(veins[..., None], rgb(0.93, 0.60, 0.26), colour)
    fold = 0.95 + 0.22 * np.sign(v) * np.sign(light.y)
    return np.where(stalk[..., None], rgb(0.36, 0.16, 0.10), colour * fold[..., None]), (np.abs(v) < edge) | stalk


def _zebra(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    trunk = inside(u, v, -0.1, -0.08, 0.6, 0.31)
    neck = limb(u, v, (0.34, -0.2), (0.6, -0.62), 0.16)
    head = limb(u, v, (0.6, -0.66), (0.86, -0.5), 0.115)
    ears = limb(u, v, (0.55, -0.72), (0.53, -0.9), 0.05)
    legs, sway = np.zeros_like(trunk), rng.uniform(-0.08, 0.08)
    for x, shift in ((-0.58, -0.06), (-0.4, 0.06), (0.22, -0.05), (0.38, 0.06)):
        legs |= limb(u, v, (x, 0.05), (x + shift + sway, 0.86), 0.075)
    tail = limb(u, v, (-0.66, -0.16), (-0.82, 0.3), 0.035)
    wave = 1.4 * noise(rng, u * 3, v * 3, 2)
    phase = np.where(trunk, 24 * u + 5 * np.abs(v), np.where(neck | head, 22 * (v - 0.4 * u), 24 * v))
    black = np.sin(phase + 3 * wave) > 0.05
    black |= limb(u, v, (0.84, -0.49), (0.96, -0.43), 0.12) | inside(u, v, 0.67, -0.68, 0.03, 0.03)
    black |= limb(u, v, (0.24, -0.44), (0.46, -0.78), 0.05) & ~head
    black |= (legs & (v > 0.8)) | (tail & (v > 0.1))
    colour = np.where(black[..., None], rgb(0.07, 0.06, 0.07), rgb(0.97, 0.95, 0.92))
    shade = np.clip(0.86 - 0.28 * (v + 0.08) / 0.31 * (trunk > 0) + 0.12 * light.x * u, 0.58, 1.08)
    return colour * shade[..., None], trunk | neck | head | ears | legs | tail


def _ladybird(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    wings, head = inside(u, v, 0.08, 0, 0.74, 0.64), inside(u, v, -0.62, 0, 0.27, 0.36)
    legs = np.zeros_like(wings)
    for x, reach in ((-0.35, -0.12), (0.1, 0.02), (0.45, 0.16)):
        legs |= limb(u, np.abs(v), (x, 0.4), (x + reach, 0.84), 0.045)
    black = np.abs(v) < 0.028
    for x, y, size in ((-0.3, 0.28, 0.13), (0.1, 0.4, 0.13), (0.5, 0.26, 0.12), (0.16, 0.13, 0.1)):
        black |= inside(u, np.abs(v), x + rng.uniform(-0.04, 0.04), y, size, size)
    colour = np.where(black[..., None], rgb(0.05, 0.04, 0.05), rgb(0.86, 0.09, 0.07))
    cheeks = inside(u, np.abs(v), -0.68, 0.2, 0.09, 0.08)
    dark = np.where(cheeks[..., None], rgb(0.95, 0.95, 0.9), rgb(0.08, 0.07, 0.08))
    colour = np.where(wings[..., None], rounded(colour, (u - 0.08) / 0.76, v / 0.66, light, 0.75), dark)
    return colour, wings | head | legs


def _sunflower(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    radius, angle = np.hypot(u, v), np.arctan2(v, u) + rng.uniform(0, 6)
    petal = np.abs(np.cos(8 * angle))
    shape = radius < 0.5 + 0.45 * petal**0.6
    colour = mix(rgb(0.86, 0.50, 0.02), rgb(1.0, 0.83, 0.10), step(0.1, 0.9, 0.75 * petal + 0.25 * radius))
    seeds = 0.5 + 0.5 * np.sin(60 * radius + 3 * np.sin(21 * angle))
    heart = mix(rgb(0.17, 0.09, 0.04), rgb(0.45, 0.27, 0.12), seeds * (0.35 + radius))
    lit = np.clip(1.0 + 0.12 * (u * light.x + v * light.y), 0.8, 1.1)
    return np.where((radius < 0.43)[..., None], heart, colour) * lit[..., None], shape


def _watermelon(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    down = v + 0.42
    radius, angle = np.hypot(u, down), np.arctan2(down, u)
    shape = (radius < 0.96) & (down > 0)
    flesh = mix(rgb(0.84, 0.13, 0.20), rgb(0.97, 0.33, 0.36), noise(rng, u * 8, v * 8, 2))
    seeds = np.zeros_like(shape)
    for ring, count in ((0.36, 4), (0.6, 7)):
        for index in range(count):
            turn = np.pi * (index + 0.5 + rng.uniform(-0.15, 0.15)) / count
            out, side = u * np.cos(turn) + down * np.sin(turn), -u * np.sin(turn) + down * np.cos(turn)
            seeds |= inside(out, side, ring, 0, 0.062, 0.036)
    colour = np.where(seeds[..., None], rgb(0.10, 0.05, 0.04), flesh)
    colour = np.where((radius > 0.75)[..., None], rgb(0.87, 0.94, 0.74), colour)
    rind = mix(rgb(0.09, 0.34, 0.12), rgb(0.36, 0.62, 0.24), step(-0.2, 0.5, np.sin(26 * angle)))
    lit = 1.0 + 0.1 * light.x * u
    return np.where((radius > 0.82)[..., None], rind, colour) * lit[..., None], shape


def _beach_ball(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    x, y = u / 0.92, v / 0.92
    z = np.sqrt(np.clip(1 - x * x - y * y, 0, 1))
    tilt = rng.uniform(0.5, 0.95)
    pole = -y * np.sin(tilt) + z * np.cos(tilt)
    around = np.arctan2(x, y * np.cos(tilt) + z * np.sin(tilt)) + rng.uniform(0, 6)
    colours = np.stack([rgb(*c) for c in ((0.10, 0.35, 0.85), (0.97, 0.97, 0.95), (0.92, 0.16, 0.42))])
    sector = np.floor(around / (2 * np.pi) * 6).astype(np.int32) % 3
    colour = np.where((pole > 0.96)[..., None], rgb(0.97, 0.97, 0.95), colours[sector])
    return rounded(colour, x, y, light, 0.5), x * x + y * y < 1


def _duck(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    body = inside(u, v, -0.06, 0.34, 0.74, 0.46) | limb(u, v, (-0.55, 0.2), (-0.84, -0.06), 0.13)
    head, wing = inside(u, v, 0.3, -0.36, 0.42, 0.4), inside(u, v, -0.18, 0.3, 0.36, 0.22)
    beak = inside(u, v, 0.76, -0.3, 0.22, 0.11)
    yellow = rgb(0.99, 0.80, 0.12) + np.float32(rng.uniform(-0.03, 0.03))
    colour = np.where(
        head[..., None],
        rounded(yellow, (u - 0.3) / 0.44, (v + 0.36) / 0.42, light, 0.35),
        rounded(yellow, (u + 0.06) / 0.84, (v - 0.34) / 0.52, light, 0.2),
    )
    colour = np.where((wing & ~head)[..., None], colour * rgb(0.93, 0.80, 0.62), colour)
    colour = np.where(beak[..., None], rgb(0.95, 0.36, 0.07) * (1.0 - 0.5 * (v > -0.29))[..., None], colour)
    colour = np.where(inside(u, v, 0.44, -0.46, 0.09, 0.1)[..., None], rgb(0.05, 0.05, 0.06), colour)
    colour = np.where(inside(u, v, 0.47, -0.5, 0.035, 0.035)[..., None], rgb(1, 1, 1), colour)
    return colour, body | head | beak


def _balloon(u: Array, v: Array, light: Light, rng: np.random.Generator) -> tuple[Array, Mask]:
    shape = inside(u, v, 0, -0.2, 0.62, 0.75) | ((np.abs(u) < (v - 0.48) * 0.75) & (v < 0.66))
    string = (np.abs(u - 0.05 * np.sin(9 * v)) < 0.016) & (v > 0.6)
    violet = mix(rgb(0.52, 0.16, 0.78), rgb(0.80, 0.18, 0.70), np.float32(rng.random()) * np.ones_like(u))
    colour = rounded(violet, u / 0.66, (v + 0.2) / 0.8, light, 0.9)
    return np.where(string[..., None], rgb(0.92, 0.92, 0.92), colour), shape | string


OBJECT_PAINTERS: dict[str, Painter] = {
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
# The largest angle in radians that an object is turned by.
MOST_TURN = dict.fromkeys(OBJECT_PAINTERS, 0.12) | {"lemon": 0.6, "tyre": 3.0, "leaf": 3.1, "ladybird": 3.1}
MOST_TURN |= {"sunflower": 3.0, "watermelon": 0.5, "beach ball": 1.0, "tomato": 0.3, "balloon": 0.2}
