"""How sure is a precision? Bounds that know that the pixels of an image are alike."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from proxyclip.evaluation.calibration.evidence import Counts, Floats

# Reported intervals hold the true precision with this probability.
INTERVAL = 0.9


def precision_bounds(
    right: Counts, pixels: Counts, prior: npt.ArrayLike, certainty: float
) -> tuple[Floats, Floats, Floats]:
    """The share of pixels that are right, with a lower and an upper bound: each holds with `certainty` (one-sided).

    right, pixels: (I, ...) counts of I images. Images are independent, the pixels of one are not: so the variance is
    that of a ratio of sums over images (linearised). One more image is added, of mean size and with the precision
    `prior`, right or wrong as a whole: without it, a few images that are all right would leave no doubt.
    """
    z = NormalDist().inv_cdf(certainty)
    images = (pixels > 0).sum(axis=0)
    counted = pixels.sum(axis=0)
    raw = right.sum(axis=0) / np.maximum(counted, 1)
    size = counted / np.maximum(images, 1)
    prior = np.broadcast_to(np.asarray(prior, float), raw.shape)
    mean = (right.sum(axis=0) + size * prior) / np.maximum(counted + size, 1)
    squares = ((right - mean * pixels) ** 2).sum(axis=0)
    squares = squares + size**2 * ((prior - mean) ** 2 + prior * (1 - prior))
    error = np.sqrt(squares * (images + 1) / np.maximum(images, 1)) / np.maximum(counted + size, 1)
    low, high = np.clip(mean - z * error, 0, 1), np.clip(mean + z * error, 0, 1)
    return raw, np.where(images > 0, np.minimum(low, raw), 0.0), np.where(images > 0, np.maximum(high, raw), 1.0)


def interval(right: Counts, pixels: Counts, prior: float) -> tuple[float, float]:
    """The two-sided interval of a precision. right, pixels: (I,) by image."""
    _, low, high = precision_bounds(right, pixels, prior, (1 + INTERVAL) / 2)
    return float(low), float(high)


def pooled_curve(right: Counts, pixels: Counts) -> Floats:
    """The precision of all classes together above each confidence; above the highest, as at the highest.

    right, pixels: (I, B) counts from above.
    """
    total = pixels.sum(axis=0)
    curve = right.sum(axis=0) / np.maximum(total, 1)
    if (total > 0).any():
        curve[total == 0] = curve[total > 0][-1]
    return curve
