"""What the demo's networks are trained on: crops of drawn scenes, with their masks and captions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from proxyclip.demo import scenes

NATIVE_PX = 112  # side of a crop; windows have the same side, so position embeddings are never interpolated


@dataclass(frozen=True)
class Pool:
    """Drawn scenes. images: (N, H, W, 3) uint8. masks: (N, H, W) uint8."""

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]


def load_pool(seeds: Sequence[int], kept: Path | None = None) -> Pool:
    """Draw the scenes of these seeds in several processes.

    kept: an .npz file that keeps them. If it exists, the scenes are read from it instead.
    """
    if kept is not None and kept.exists():
        with np.load(kept) as file:
            return Pool(file["images"], file["masks"])
    with ProcessPoolExecutor(os.cpu_count()) as workers:
        drawn = list(workers.map(_draw_landscape, seeds, chunksize=32))
    pool = Pool(np.stack([image for image, _ in drawn]), np.stack([mask for _, mask in drawn]))
    if kept is not None:
        np.savez(kept, images=pool.images, masks=pool.masks)
    return pool


def _draw_landscape(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    scene = scenes.draw_scene(seed, (240, 320))
    return scene.image, scene.mask


def crops(pool: Pool, batch: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Random crops without end, resized by 0.7 to 1.4, some mirrored, with other brightness and contrast.

    Each batch is pixels (B, 3, 112, 112) in [0, 1] and masks (B, 112, 112) int64.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    count, height, width = pool.masks.shape
    while True:
        pixels, masks = [], []
        for index in torch.randint(count, (batch,), generator=generator).tolist():
            side = round(uniform(80, 160))
            top, left = int(uniform(0, height - side + 1)), int(uniform(0, width - side + 1))
            cut = (index, slice(top, top + side), slice(left, left + side))
            image = torch.from_numpy(pool.images[cut]).permute(2, 0, 1)[None].float() / 255
            mask = torch.from_numpy(pool.masks[cut])[None, None].float()
            size, smooth = (NATIVE_PX, NATIVE_PX), uniform(0, 1) < 0.5
            image = F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=smooth)[0]
            image = (image - 0.5) * uniform(0.85, 1.15) + 0.5 + uniform(-0.06, 0.06)
            mask = F.interpolate(mask, size, mode="nearest-exact")[0, 0]
            if uniform(0, 1) < 0.5:
                image, mask = image.flip(-1), mask.flip(-1)
            pixels.append(image)
            masks.append(mask)
        yield torch.stack(pixels).clamp(0, 1), torch.stack(masks).long()


def patch_shares(masks: Tensor, patch: int) -> Tensor:
    """The share of each class in each patch, (B, N, K), from masks (B, H, W). A patch's shares sum to 1."""
    classes = len(scenes.CLASSES)
    cells = masks.unfold(1, patch, patch).unfold(2, patch, patch).flatten(3).flatten(1, 2)  # (B, N, patch^2)
    batch, num_patches, area = cells.shape
    first = torch.arange(batch * num_patches).view(batch, num_patches, 1) * classes
    counts = torch.bincount((cells + first).flatten(), minlength=batch * num_patches * classes)
    return counts.view(batch, num_patches, classes).float() / area


def caption(mask: Tensor) -> str:
    """What a crop shows, without the classes that cover less than 2 % of it."""
    seen = torch.bincount(mask.flatten(), minlength=len(scenes.CLASSES)) > 0.02 * mask.numel()
    names = [name for name, there in zip(scenes.CLASSES, seen.tolist(), strict=True) if there]
    backgrounds = [name for name in names if name in scenes.BACKGROUNDS]
    return scenes.describe(backgrounds, [name for name in names if name in scenes.OBJECTS])
