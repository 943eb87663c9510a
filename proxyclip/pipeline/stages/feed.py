"""Feed: the images of one shard, grouped for the networks and collected again as rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import torch

from proxyclip.dataset.rows import Failure, LabelledImage
from proxyclip.images.sizes import ResizedImage
from proxyclip.models.adaptation.image_sums import ImageSums
from proxyclip.models.adaptation.statistics import Statistics
from proxyclip.models.features import DenseFeatures, EncodedFeatures
from proxyclip.models.memory import OutOfMemory
from proxyclip.pipeline.stages.decode import ImageLabels, PendingLabels
from proxyclip.pipeline.stages.network_thread import NetworkThread
from proxyclip.vocabulary.names import Vocabulary

# A group of images goes to the networks when it makes this many full batches of windows.
BATCHES_PER_GROUP = 4

# Groups of a shard that are at the networks: one in work, one that waits.
GROUPS_AHEAD = 2

Group = list[tuple[str, ResizedImage]]


@dataclass(frozen=True)
class Found:
    """What the networks made of an image. None: not wanted."""

    labels: ImageLabels | PendingLabels | None = None
    features: DenseFeatures | None = None


@dataclass
class Rows:
    """What a shard has to store: the images with labels, those with features, and those with neither.

    windows: of all its images that could be read.
    """

    images: list[LabelledImage] = field(default_factory=list)
    features: list[tuple[str, EncodedFeatures]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    statistics: Statistics | None = None
    windows: int = 0


class Labeller(Protocol):
    """What labels images: the networks of an actor, or what stands in for them in a test or a benchmark."""

    @property
    def windows_at_once(self) -> int:
        """Windows per batch."""

    def num_windows(self, image: ResizedImage) -> int:
        """How many windows an image is cut into."""

    def label(self, images: Sequence[ResizedImage], vocabulary: Vocabulary | None) -> list[Found]:
        """Label some images, unless `vocabulary` is None. Raises OutOfMemory or MemoryError where they do not fit
        together.
        """


class Feed:
    """Hands the images of a shard to the networks, a few groups ahead, and compresses what comes back.

    vocabulary: None to label nothing. codec: None to keep no features. sums: None to collect no statistics. order: of
    the shard among the actor's shards; the network thread serves the lowest first.
    """

    def __init__(
        self,
        networks: NetworkThread,
        labeller: Labeller,
        vocabulary: Vocabulary | None,
        order: int,
        codec: str | None = None,
        sums: ImageSums | None = None,
    ) -> None:
        self._networks = networks
        self._labeller = labeller
        self._vocabulary = vocabulary
        self._order = order
        self._codec = codec
        self._sums = sums
        self._group: Group = []
        self._num_windows = 0
        self._ahead: deque[tuple[Group, Future[list[Found] | None]]] = deque()
        self._rows = Rows()

    def add(self, uri: str, image: ResizedImage) -> None:
        """Add an image. Blocks while enough groups are ahead."""
        self._group.append((uri, image))
        num_windows = self._labeller.num_windows(image)
        self._num_windows += num_windows
        self._rows.windows += num_windows
        if self._num_windows >= BATCHES_PER_GROUP * self._labeller.windows_at_once:
            self._submit(self._group)
            self._group, self._num_windows = [], 0
            self._collect(GROUPS_AHEAD - 1)

    def finish(self) -> Rows:
        """The rows of all images, once the last one is labelled, and a failure for each that does not fit in memory.

        Raises OutOfMemory if several images were added and none fits: then the fault is not theirs.
        """
        if self._group:
            self._submit(self._group)
        self._collect(0)
        rows, too_large = self._rows, self._rows.failures
        if len(too_large) > 1 and not rows.images and not rows.features:
            raise OutOfMemory(
                f"none of the {len(too_large)} images of the shard fits into memory; {too_large[0].reason}"
            )
        return rows

    def _submit(self, group: Group) -> None:
        self._ahead.append((group, self._networks.submit(self._order, self._label, group)))

    def _collect(self, at_most: int) -> None:
        """Take results until at most so many groups are ahead."""
        while len(self._ahead) > at_most:
            group, future = self._ahead.popleft()
            results = future.result()
            if results is not None:
                for (uri, _), found in zip(group, results, strict=True):
                    self._store(uri, found)
            elif len(group) > 1:  # too large together: one by one gives the same result
                for one in group:
                    self._submit([one])
            else:
                ((uri, image),) = group
                height, width = image.original_hw
                reason = f"{width} x {height} pixels need more memory than there is"
                self._rows.failures.append(Failure(uri, "segment", "out_of_memory", reason))

    def _store(self, uri: str, found: Found) -> None:
        if found.labels is not None and self._vocabulary is not None:
            self._rows.images.append(found.labels.compressed(uri, self._vocabulary.colours))
        if found.features is not None and self._codec is not None:
            self._rows.features.append((uri, EncodedFeatures.of(found.features, self._codec)))
        if found.features is not None and self._sums is not None:
            of_image = self._sums.of(uri, found.features)
            if self._rows.statistics is None:
                self._rows.statistics = of_image
            else:
                self._rows.statistics.add(of_image)

    def _label(self, group: Group) -> list[Found] | None:
        """What the networks make of a group, or None where memory does not suffice."""
        try:
            return self._labeller.label([image for _, image in group], self._vocabulary)
        except (OutOfMemory, MemoryError, torch.OutOfMemoryError):
            return None
