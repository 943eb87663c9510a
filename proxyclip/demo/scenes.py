"""Scenes: a seed gives an image, the class of every pixel, and a caption.

    python -m proxyclip.demo.scenes FOLDER --count 24

All lengths are in units of the image's short side, so that a seed gives the same scene at every resolution.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from proxyclip.demo.backgrounds import BACKGROUND_PAINTERS
from proxyclip.demo.objects import MOST_TURN, OBJECT_PAINTERS
from proxyclip.demo.paint import Array, Light, mix, noise, step

TRAIN_SEEDS = range(1_000_000)
HELD_OUT_SEEDS = range(2_000_000, 3_000_000)  # never used in training; figures are measured on these
SAMPLE_SEEDS = range(3_000_000, 4_000_000)  # for sample images

BACKGROUNDS = tuple(BACKGROUND_PAINTERS)
OBJECTS = tuple(OBJECT_PAINTERS)
CLASSES = BACKGROUNDS + OBJECTS
_SAMPLE_SIZES = ((480, 640), (480, 720), (640, 480), (540, 960), (512, 512), (600, 800), (720, 480), (360, 640))

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
    """image: (H, W, 3) uint8 RGB. mask: (H, W) uint8, indices of CLASSES. caption: names all classes in the image."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    caption: str


def draw_scene(seed: int, size_hw: tuple[int, int] = (240, 320)) -> Scene:
    """Draw the scene of a seed at (height, width). The same seed and size give the same bytes."""
    height, width = size_hw
    rng = np.random.default_rng(seed)
    side = float(rng.uniform(-0.75, 0.75))
    light = Light(side, -0.55, float(np.sqrt(0.6975 - 0.5625 * side * side)))
    image, mask, horizon, grounds = draw_backdrop(height, width, rng)
    items = _place_objects(height, width, horizon, rng)
    for item in sorted(items, key=lambda item: item.y + item.half):  # from far to near
        image = draw_object(item, image, mask, light, rng)
    pixels = develop(image, light, rng)
    objects = {item.name for item in items if (mask == CLASSES.index(item.name)).any()}
    return Scene(pixels, mask, describe(grounds, sorted(objects)))


def describe(grounds: list[str], objects: list[str]) -> str:
    """A caption: `describe(["grass", "sky"], ["lemon", "zebra"])` is "a lemon and a zebra, grass and sky"."""

    def listed(words: list[str]) -> str:
        return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]

    parts = [listed([f"a {name}" for name in objects])] if objects else []
    return ", ".join(parts + ([listed(grounds)] if grounds else []))


def write_samples(folder: str | Path, count: int = 24, seed: int = 0, labels: str | Path | None = None) -> list[Path]:
    """Write `count` JPEGs of several sizes into `folder`. Returns their paths. Another `seed` gives other scenes.

    labels: folder for their masks, as PNGs of the same names whose values are indices of CLASSES.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if labels is not None:
        Path(labels).mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        scene = draw_scene(SAMPLE_SEEDS.start + 1000 * seed + index, _SAMPLE_SIZES[index % len(_SAMPLE_SIZES)])
        paths.append(folder / f"scene-{index:04d}.jpg")
        Image.fromarray(scene.image).save(paths[-1], quality=92)
        if labels is not None:
            Image.fromarray(scene.mask).save(Path(labels) / f"{paths[-1].stem}.png")
    return paths


class Item(NamedTuple):
    """An object in a scene: its centre and half its size, in units of the short side. thin: height by width."""

    x: float
    y: float
    half: float
    name: str
    thin: float = 1.0


def draw_backdrop(
    height: int, width: int, rng: np.random.Generator
) -> tuple[Array, NDArray[np.uint8], float, list[str]]:
    """Draw one background seen from above, or a ground below a sky or a wall.

    Returns image, mask, the y of the horizon (-1: none) and the names of the backgrounds.
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
        image = BACKGROUND_PAINTERS[ground](turned_x, turned_y, rng)
        return image, np.full((height, width), CLASSES.index(ground), np.uint8), -1.0, [ground]

    behind = "sky" if ground == "water" or rng.random() < 0.65 else "brick"
    horizon = float(rng.uniform(0.25, 0.55)) * tall
    wobble = 0.05 * (noise(rng, x * 3, np.zeros_like(y), 3) - 0.5) if ground in ("grass", "sand") else np.zeros_like(x)
    below = y - horizon - wobble
    depth = 1 / (np.clip(below, 0, None) / (tall - horizon) * 0.85 + 0.22)  # 0.93 at the lower edge, 4.5 at the horizon
    floor = BACKGROUND_PAINTERS[ground]((x - 0.6) * depth + 5, 2.2 * depth, rng)
    # Far away the texture is finer than a pixel: fade it to its mean, as a lens does.
    floor = mix(floor, floor.mean((0, 1)), np.clip((depth - 1.5) / 3.5, 0, 0.8))
    back = BACKGROUND_PAINTERS[behind](x + 5, y / max(horizon, 0.3) if behind == "sky" else y, rng)
    if behind == "brick":
        floor = floor * (0.55 + 0.45 * step(0, 0.09, below))[..., None]  # the wall's shadow on the ground
    on_ground = below > 0
    mask = np.where(on_ground, CLASSES.index(ground), CLASSES.index(behind)).astype(np.uint8)
    return np.where(on_ground[..., None], floor, back), mask, horizon, [ground, behind]


def _place_objects(height: int, width: int, horizon: float, rng: np.random.Generator) -> list[Item]:
    """Choose objects, their sizes and places, so that they hardly overlap."""
    unit = min(height, width)
    wide, tall = width / unit, height / unit
    placed: list[Item] = []
    wanted = int(rng.integers(2, 6)) + int(max(wide, tall) > 1.6)
    for _ in range(60):
        if len(placed) == wanted:
            break
        name = str(rng.choice(OBJECTS))
        half = float(rng.uniform(0.11, 0.25)) * (1.2 if horizon < 0 else 1.0) * (1.15 if name == "zebra" else 1.0)
        x = float(rng.uniform(0.5 * half, wide - 0.5 * half))
        if horizon < 0:
            y = float(rng.uniform(0.5 * half, tall - 0.5 * half))
        elif name == "balloon":
            y = float(rng.uniform(half, max(horizon, 1.1 * half)))
        else:  # it stands on the ground: further away means higher up and smaller
            near = float(rng.random())
            half *= 0.65 + 0.5 * near
            y = horizon + near * (tall - horizon - 0.1) + 0.05 - 0.6 * half
        if all((x - other.x) ** 2 + (y - other.y) ** 2 > (0.78 * (half + other.half)) ** 2 for other in placed):
            placed.append(Item(x, y, half, name))
    return placed


def draw_object(item: Item, image: Array, mask: NDArray[np.uint8], light: Light, rng: np.random.Generator) -> Array:
    """Paint an object, its shadow first. Returns the new image; changes `mask` in place."""
    x, y, size, name, thin = item
    height, width = mask.shape
    unit, finer = min(height, width), 3
    half = max(int(size * unit * 1.05), 4)
    top, left = int(y * unit) - half, int(x * unit) - half
    side = 2 * half
    across = (np.arange(side * finer, dtype=np.float32) + 0.5) / (finer * half) * 1.05 - 1.05
    u, v = np.meshgrid(across, across)
    turn, flip = float(rng.uniform(-1, 1)) * MOST_TURN[name], float(rng.choice([-1, 1]))
    local_u = np.cos(turn) * u * flip + np.sin(turn) * v
    local_v = (-np.sin(turn) * u * flip + np.cos(turn) * v) / thin
    colour, shape = OBJECT_PAINTERS[name](local_u, local_v, light.turned(turn, flip), rng)

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
    image[rows, columns] = mix(image[rows, columns], paint[inner], alpha[inner])
    mask[rows, columns][alpha[inner] > 0.5] = CLASSES.index(name)
    return image


def develop(image: Array, light: Light, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Add what a camera adds: exposure, white balance, darker corners and noise."""
    height, width = image.shape[:2]
    unit = min(height, width)
    xs, ys = _grid(height, width)
    warmth = float(rng.uniform(-0.06, 0.06))
    image = image * (rng.uniform(0.86, 1.1) * np.array([1 + warmth, 1, 1 - warmth], np.float32))
    across, down = xs / (width / unit) - 0.5, ys / (height / unit) - 0.5
    image = image * (1 - 0.32 * (across**2 + down**2) + 0.08 * across * light.x)[..., None]
    image = image + rng.normal(0, rng.uniform(0.004, 0.014), image.shape)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _grid(height: int, width: int) -> tuple[Array, Array]:
    """Pixel centres x, y (H, W) in units of the short side."""
    unit = min(height, width)
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    return (xs + 0.5) / unit, (ys + 0.5) / unit


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(prog="python -m proxyclip.demo.scenes", description="Draw sample images as JPEGs.")
    parser.add_argument("folder", type=Path, help="folder for the images; created if missing")
    parser.add_argument("--count", type=int, default=24, help="number of images (default 24)")
    parser.add_argument("--seed", type=int, default=0, help="each seed draws other scenes (default 0)")
    parser.add_argument("--labels", type=Path, metavar="FOLDER", help="folder for what each pixel shows, as PNGs")
    arguments = parser.parse_args()
    write_samples(arguments.folder, arguments.count, arguments.seed, arguments.labels)
    print(f"{arguments.count} scenes in {arguments.folder}")


if __name__ == "__main__":
    main()
