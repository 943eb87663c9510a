"""Refinements of class probabilities (H, W, K) by the image: the candidates, and blurs as controls."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from skimage.segmentation import felzenszwalb, slic

Maps = npt.NDArray[np.float32]


def box_blur(maps: Maps, side: int) -> Maps:
    """The mean over a square of `side` pixels, with the border repeated."""
    return _over_channels(maps, lambda part: cv2.blur(part, (side, side), borderType=cv2.BORDER_REPLICATE))


def gaussian_blur(maps: Maps, sigma: float) -> Maps:
    return _over_channels(maps, lambda part: cv2.GaussianBlur(part, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE))


def guided_filter(maps: Maps, image: npt.NDArray[np.uint8], radius: int, eps: float, *, colour: bool = False) -> Maps:
    """Guided image filtering (He, Sun and Tang, ECCV 2010): in every square, each map is linear in the guide.

    image: (H, W, 3), compared in [0, 1]. colour: the guide has three channels, not only grey.
    """
    side = 2 * radius + 1
    guide: Maps = image.astype(np.float32) / np.float32(255)
    if not colour:
        guide = np.asarray(cv2.cvtColor(guide, cv2.COLOR_RGB2GRAY), np.float32)[..., None]
    channels = guide.shape[-1]
    mean = box_blur(guide, side)
    products = (guide[..., :, None] * guide[..., None, :]).reshape(*guide.shape[:2], -1)
    covariance = box_blur(products, side).reshape(*guide.shape, channels) - mean[..., :, None] * mean[..., None, :]
    inverse = np.linalg.inv(covariance + eps * np.eye(channels, dtype=np.float32))
    map_mean = box_blur(maps, side)
    cross = [box_blur(guide[..., c : c + 1] * maps, side) - mean[..., c : c + 1] * map_mean for c in range(channels)]
    slopes = np.einsum("hwcd,hwdk->hwck", inverse, np.stack(cross, 2)) if colour else inverse * np.stack(cross, 2)
    offset = map_mean - (slopes * mean[..., None]).sum(2)
    refined = box_blur(offset, side)
    for c in range(channels):
        refined += guide[..., c : c + 1] * box_blur(np.ascontiguousarray(slopes[:, :, c]), side)
    return refined


def felzenszwalb_regions(image: npt.NDArray[np.uint8], scale: float, least: int) -> npt.NDArray[np.intp]:
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    return np.asarray(felzenszwalb(lab, scale=scale, sigma=0.8, min_size=least))


def slic_regions(image: npt.NDArray[np.uint8], count: int, compactness: float) -> npt.NDArray[np.intp]:
    return np.asarray(slic(image, count, compactness, start_label=0))


def merged(regions: npt.NDArray[np.intp], features: Maps, *, count: int = 0, distance: float = 0.0) -> Any:
    """Regions merged by the mean features (h, w, E) of each, by average linkage of cosines.

    count: how many are left, or distance: how unlike they may be.
    """
    height, width = features.shape[:2]
    small = cv2.resize(regions.astype(np.int32).astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
    number = int(regions.max()) + 1
    flat = small.astype(np.intp).ravel()
    sums = np.zeros((number, features.shape[-1]), np.float32)
    np.add.at(sums, flat, features.reshape(-1, features.shape[-1]))
    seen = np.flatnonzero(np.bincount(flat, minlength=number))
    if len(seen) < 3:
        return regions
    tree = linkage(sums[seen], "average", metric="cosine")
    cluster = fcluster(tree, count, "maxclust") if count else fcluster(tree, distance, "distance")
    new = np.arange(number) + number  # a region that no feature saw stays by itself
    new[seen] = cluster
    return np.unique(new[regions], return_inverse=True)[1].reshape(regions.shape)


def region_means(maps: Maps, regions: npt.NDArray[np.intp]) -> Maps:
    """The mean of the maps over each region, at every pixel of it."""
    flat, number = regions.ravel(), int(regions.max()) + 1
    pixels = np.maximum(np.bincount(flat, minlength=number), 1)[:, None]
    maps_flat = maps.reshape(len(flat), -1)
    sums = np.stack([np.bincount(flat, maps_flat[:, k], number) for k in range(maps_flat.shape[1])], 1)
    return (sums / pixels)[flat].astype(np.float32).reshape(maps.shape)


def vote(maps: Maps, regions: npt.NDArray[np.intp], share: float = 1.0) -> Maps:
    """Geometric mean of each pixel's probabilities and its region's: share 1 is the region's alone."""
    means = region_means(maps, regions)
    return means if share == 1 else np.exp(share * np.log(means + 1e-9) + (1 - share) * np.log(maps + 1e-9))


def _over_channels(maps: Maps, blur: Any, most: int = 64) -> Maps:
    parts = [blur(np.ascontiguousarray(maps[..., at : at + most])) for at in range(0, maps.shape[-1], most)]
    parts = [part if part.ndim == 3 else part[..., None] for part in parts]
    return np.concatenate(parts, -1) if len(parts) > 1 else parts[0]
