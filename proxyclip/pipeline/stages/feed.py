"""Feed: the images of one shard, grouped for the networks and collected again as rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

import numpy as np
import torch

from proxyclip.dataset.rows import Failure, LabelledImage
from proxyclip.images.sizes import ResizedImage
from proxyclip.models.memory import OutOfMemory
from proxyclip.pipeline.stages.decode import ImageLabels
from proxyclip.pipeline.stages.network_thread import NetworkThread
from proxyclip.vocabulary.names import Vocabulary

# A group of images goes to the networks when it makes this many full batches of windows.
BATCHES_PER_GROUP = 4

# Groups of a shard that are at the networks: one in work, one that waits.
GROUPS_AHEAD = 2

Group = list[tuple[str, ResizedImage]]


class Labeller(Protocol):
    """What labels images: the networks of an actor, or what stands in for them in a test or a benchmark."""

    @property
    def windows_at_once(self) -> int:
        """Windows per batch."""

    def num_windows(self, image: ResizedImage) -> int:
        """How many windows an image is cut into."""

    def label(self, images: Sequence[ResizedImage], vocabulary: Vocabulary) -> list[ImageLabels]:
        """Label some images. Raises OutOfMemory or MemoryError where they do not fit together."""


class Feed:
    """Hands the images of a shard to the networks, a few groups ahead, and compresses what comes back.

    order: of the shard among the actor's shards; the network thread serves the lowest first.
    """

    def __init__(self, networks: NetworkThread, labeller: Labeller, vocabulary: Vocabulary, order: int) -> None:
        self._networks = networks
        self._labeller = labeller
        self._vocabulary = vocabulary
        self._order = order
        self._group: Group = []
        self._num_windows = 0
        self._ahead: deque[tuple[Group, Future[list[ImageLabels] | None]]] = deque()
        self._images: list[LabelledImage] = []
        self._too_large: list[Failure] = []

    def add(self, uri: str, image: ResizedImage) -> None:
        """Add an image. Blocks while enough groups are ahead."""
        self._group.append((uri, image))
        self._num_windows += self._labeller.num_windows(image)
        if self._num_windows >= BATCHES_PER_GROUP * self._labeller.windows_at_once:
            self._submit(self._group)
            self._group, self._num_windows = [], 0
            self._collect(GROUPS_AHEAD - 1)

    def finish(self) -> tuple[list[LabelledImage], list[Failure]]:
        """The rows of all images, once the last one is labelled, and a failure for each that does not fit in memory.

        Raises OutOfMemory if several images were added and none fits: then the fault is not theirs.
        """
        if self._group:
            self._submit(self._group)
        self._collect(0)
        if len(self._too_large) > 1 and not self._images:
            raise OutOfMemory(
                f"none of the {len(self._too_large)} images of the shard fits into memory; {self._too_large[0].reason}"
            )
        return self._images, self._too_large

    def _submit(self, group: Group) -> None:
        self._ahead.append((group, self._networks.submit(self._order, self._label, group)))

    def _collect(self, at_most: int) -> None:
        """Take results until at most so many groups are ahead."""
        colours: np.ndarray = self._vocabulary.colours
        while len(self._ahead) > at_most:
            group, future = self._ahead.popleft()
            labels = future.result()
            if labels is not None:
                for (uri, _), found in zip(group, labels, strict=True):
                    self._images.append(found.compressed(uri, colours))
            elif len(group) > 1:  # too large together: one by one gives the same result
                for one in group:
                    self._submit([one])
            else:
                ((uri, image),) = group
                height, width = image.original_hw
                reason = f"{width} x {height} pixels need more memory than there is"
                self._too_large.append(Failure(uri, "segment", "out_of_memory", reason))

    def _label(self, group: Group) -> list[ImageLabels] | None:
        """Labels of a group, or None where memory does not suffice."""
        try:
            return self._labeller.label([image for _, image in group], self._vocabulary)
        except (OutOfMemory, MemoryError, torch.OutOfMemoryError):
            return None
