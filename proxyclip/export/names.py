"""Names: what the files of an exported image are called, so that no two images share one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from proxyclip.images.inputs.names import as_path
from proxyclip.images.ref import EXTENSIONS

LONGEST_NAME_BYTES = 240  # disks take 255; a suffix comes behind


@dataclass(frozen=True)
class NamesInUse:
    """Which images share their name without suffix with another one: `a.jpg` and `a.png` in one folder.

    shared: these names.
    """

    shared: frozenset[str] = frozenset()

    @classmethod
    def find(cls, images: Callable[[], Iterable[tuple[str, int]]]) -> tuple[NamesInUse, dict[int, list[str]]]:
        """From the uri and the shard of each image: the shared names, and for each shard its images with such a name.

        Holds 8 bytes for each image. Goes over the images twice if any name is shared.
        """
        hashes = np.fromiter((_hash(_stem(uri)) for uri, _ in images()), np.uint64)
        values, counts = np.unique(hashes, return_counts=True)
        twice = set(values[counts > 1].tolist())
        of_shard: dict[int, list[str]] = {}
        for uri, shard in images() if twice else ():
            if _hash(_stem(uri)) in twice:
                of_shard.setdefault(shard, []).append(uri)
        return cls(frozenset(_stem(uri) for uris in of_shard.values() for uri in uris)), of_shard

    def name(self, uri: str) -> str:
        """The uri without its suffix. With it, if another image has the same name without it.

        A name that would still end in an image's suffix (`a.png.jpg`) keeps both, so that it is never that of
        another image. The last part of a very long name is replaced by its hash.
        """
        stem = _stem(uri)
        name = as_path(uri) if stem in self.shared or stem.lower().endswith(EXTENSIONS) else stem
        folder, slash, last = name.rpartition("/")
        if len(last.encode()) > LONGEST_NAME_BYTES:
            last = hashlib.sha256(last.encode()).hexdigest()
        return f"{folder}{slash}{last}"


def suffix(uri: str) -> str:
    """What comes after the name without suffix: ".jpg"."""
    return as_path(uri)[len(_stem(uri)) :]


def _stem(uri: str) -> str:
    """The path of a uri without the suffix of an image. A name that is only a suffix has none."""
    path = as_path(uri)
    folder, slash, last = path.rpartition("/")
    for extension in EXTENSIONS:
        if last.lower().endswith(extension) and len(last) > len(extension):
            return f"{folder}{slash}{last[: -len(extension)]}"
    return path


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
