"""Sufficient statistics of a corpus: sums over patches from which a head can be computed, whatever the corpus's size.

All sums are whole numbers of `UNIT`: each image's are rounded once, and whole numbers add up to the same in any order.
So the statistics of a corpus have the same bytes for any number of workers, shards and restarts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from proxyclip.models.adaptation.sample import PER_SHARD, Sample, half_of

Counts = npt.NDArray[np.int64]

# Every image weighs 1 at most and features are at most 1 long, so int64 holds the sums of 10^11 images.
UNIT = 2.0**-24

# Smaller shares of an image are no evidence of a class: every class has some of every image.
VISIBLE = 0.05

_SUMS = ("images", "mass", "sums", "moments", "evidence", "shares")


@dataclass(eq=False)
class Statistics:
    """Sums over the patches of images, in units of `UNIT`, with p the probabilities of K classes and x the features.

    The weights w of the patches of an image add up to 1, and are less where the probabilities are unsure. Images are in
    two halves, which are kept apart where the first axis is 2, so that the halves can be compared.

    images: (2,), their number. mass: (2, K), sums of w p. sums: (2, K, E), of w p x. moments: (E (E + 1) / 2,), the
    upper triangle of the sum of w x x^T. evidence: (K,), sum of the squares of the class's share of each image that it
    has at least `VISIBLE` of: an image full of the class counts as 1, one that is half full as a quarter. shares: (K,),
    sum of its shares of all images. sample: some of the patches.
    """

    images: Counts
    mass: Counts
    sums: Counts
    moments: Counts
    evidence: Counts
    shares: Counts
    sample: Sample

    @classmethod
    def empty(cls, num_classes: int, dim: int) -> Statistics:
        """Those of no image."""
        return cls(
            images=np.zeros(2, np.int64),
            mass=np.zeros((2, num_classes), np.int64),
            sums=np.zeros((2, num_classes, dim), np.int64),
            moments=np.zeros(dim * (dim + 1) // 2, np.int64),
            evidence=np.zeros(num_classes, np.int64),
            shares=np.zeros(num_classes, np.int64),
            sample=Sample.empty(dim),
        )

    @classmethod
    def of_image(cls, uri: str, patches: Tensor, weights: Tensor, probabilities: Tensor) -> Statistics:
        """Those of one image.

        patches: (N, E). weights: (N,), at most 1 together. probabilities: (N, K).
        Raises ValueError if a number is not finite.
        """
        weighted = weights[:, None] * probabilities
        mass = weighted.sum(dim=0)
        sums = weighted.T @ patches
        rows, columns = torch.triu_indices(patches.shape[1], patches.shape[1])
        moments = ((weights[:, None] * patches).T @ patches)[rows, columns]
        share = mass / mass.sum().clamp_min(torch.finfo(mass.dtype).tiny)
        statistics, half = cls.empty(probabilities.shape[1], patches.shape[1]), half_of(uri)
        statistics.images[half] = 1
        for into, values in (
            (statistics.mass[half], mass),
            (statistics.sums[half], sums),
            (statistics.moments, moments),
            (statistics.evidence, share**2 * (share >= VISIBLE)),
            (statistics.shares, share),
        ):
            if not bool(values.isfinite().all()):
                raise ValueError(f"{uri}: its features have numbers that are not finite")
            into[...] = (values.double() / UNIT).round().to(torch.int64).cpu().numpy()
        statistics.sample = Sample.of_image(uri, patches)
        return statistics

    def add(self, other: Statistics, sample: int = PER_SHARD) -> None:
        """Add those of other images. sample: how many patches to keep.

        Raises ValueError if the others are of other classes or features.
        """
        for name in _SUMS:
            mine, others = getattr(self, name), getattr(other, name)
            if mine.shape != others.shape:
                raise ValueError(f"statistics of shape {others.shape} cannot be added to {mine.shape} ({name}).")
            mine += others
        self.sample = self.sample.with_more(other.sample, sample)

    @property
    def num_classes(self) -> int:
        """K."""
        return self.mass.shape[1]

    @property
    def dim(self) -> int:
        """E."""
        return self.sums.shape[2]

    def to_bytes(self) -> bytes:
        """A safetensors file; arrays whose numbers fit are in 32 bits. The same statistics have the same bytes."""
        from safetensors.numpy import save

        arrays: dict[str, npt.NDArray[Any]] = {name: _narrow(getattr(self, name)) for name in _SUMS}
        return save({**arrays, "keys": self.sample.keys, "patches": self.sample.patches})

    @classmethod
    def from_bytes(cls, data: bytes) -> Statistics:
        """The inverse of `to_bytes`. Raises ValueError if the bytes are damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(data)
            sums = {name: arrays[name].astype(np.int64) for name in _SUMS}
            return cls(**sums, sample=Sample(arrays["keys"], arrays["patches"]))
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"the statistics are damaged: {error}") from error


def _narrow(values: Counts) -> npt.NDArray[np.signedinteger]:
    limit = np.iinfo(np.int32)
    return values.astype(np.int32) if limit.min <= values.min() and values.max() <= limit.max else values
