"""A sample of a corpus's patches that does not depend on the order in which its images come."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

# Patches kept of one shard (half a megabyte with E = 512), and of a corpus.
PER_SHARD = 512
PER_CORPUS = 4096


@dataclass(frozen=True, eq=False)
class Sample:
    """Some patches: those with the smallest keys. A key is a random number that follows from an image's uri.

    keys: (n,) uint64, ascending. patches: (n, E) float16.
    """

    keys: npt.NDArray[np.uint64]
    patches: npt.NDArray[np.float16]

    @classmethod
    def empty(cls, dim: int) -> Sample:
        """No patches."""
        return cls(np.empty(0, np.uint64), np.empty((0, dim), np.float16))

    @classmethod
    def of_image(cls, uri: str, patches: Tensor) -> Sample:
        """The patches (N, E) of one image that a shard could keep."""
        seed = int.from_bytes(hashlib.sha256(uri.encode()).digest()[:16], "little")
        keys = np.random.PCG64(seed).random_raw(len(patches))
        smallest = np.argsort(keys, kind="stable")[:PER_SHARD]
        return cls(keys[smallest], patches.half().cpu().numpy()[smallest])

    def with_more(self, other: Sample, most: int) -> Sample:
        """The `most` smallest keys of both."""
        keys = np.concatenate([self.keys, other.keys])
        smallest = np.argsort(keys, kind="stable")[:most]
        return Sample(keys[smallest], np.concatenate([self.patches, other.patches])[smallest])


def half_of(uri: str) -> int:
    """Which half of the corpus an image belongs to, 0 or 1."""
    return hashlib.sha256(uri.encode()).digest()[16] & 1
