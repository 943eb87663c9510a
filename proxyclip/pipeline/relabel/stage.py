"""Relabel: an actor that turns the stored features of a shard into committed masks, for one vocabulary or several."""

from __future__ import annotations

import contextlib
import threading
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import pyarrow as pa
import ray
import torch

from proxyclip.dataset.commits import read_commit
from proxyclip.dataset.features.record import features_of
from proxyclip.dataset.features.shards import read_features
from proxyclip.dataset.rows import Failure, ImageFeatures, LabelledImage
from proxyclip.dataset.run_record import read_head, read_vocabulary
from proxyclip.dataset.shards import write_shard
from proxyclip.images.errors import ImageError
from proxyclip.images.listing import fetch_image, open_images
from proxyclip.images.readers import ReaderPool
from proxyclip.images.regions import read_regions
from proxyclip.images.sizes import ResizedImage
from proxyclip.models.decoding.decoder import Decoder
from proxyclip.models.features import StoredFeatures
from proxyclip.models.kernels.cpu import keep_memory
from proxyclip.models.pixels import pixels_on
from proxyclip.pipeline.features import features_from
from proxyclip.pipeline.relabel.graph import RECEIPT_SCHEMA, RelabelConfig, TargetConfig
from proxyclip.pipeline.relabel.options import MAX_VOCABULARIES
from proxyclip.pipeline.stages.actor import SHARDS_AT_ONCE
from proxyclip.pipeline.stages.decode import decode_images
from proxyclip.pipeline.stages.starts import Starts
from proxyclip.pipeline.stages.write import Receipt
from proxyclip.storage.retry import count_retries
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary

_IMAGE_TIMEOUT_S = 60.0


class RelabelShards:
    """Rows of `graph.PENDING_SCHEMA` to rows of `graph.RECEIPT_SCHEMA`; Ray Data calls it from several threads.

    Any error fails the shard for the outputs that it concerns, where it then stays pending.
    """

    def __init__(self, config: RelabelConfig, starts: Starts | None = None) -> None:
        keep_memory()
        self._source = Storage(config.source)
        core = _Core(starts)
        self._targets = [
            _Labeller(number, target, config.confidence_stride, core) for number, target in enumerate(config.targets)
        ]
        wants_images = any(target.decode.needs_image for target in config.targets)
        self._images = _Images(config) if wants_images else None
        self._regions = Storage(config.regions) if config.regions else None

    def __call__(self, rows: pa.Table) -> pa.Table:
        torch.set_num_threads(1)  # of this thread
        receipts = [found for row in rows.to_pylist() for found in self._relabel(row["shard"], row["targets"])]
        return pa.Table.from_pylist(
            [{"target": target, **vars(receipt)} for target, receipt in receipts], RECEIPT_SCHEMA
        )

    def _relabel(self, shard: int, targets: Sequence[int]) -> Iterator[tuple[int, Receipt]]:
        left = list(targets)
        try:
            with count_retries() as retries:
                rows, failures = read_features(self._source, read_commit(features_of(self._source), shard))
                images, failures = self._decoded(rows, failures)
            first = retries.count
            while left:
                yield left[0], self._targets[left[0]].label(shard, images, failures, first)
                left, first = left[1:], 0
        except Exception as problem:  # the run goes on; the driver lists the error
            error = "".join(traceback.format_exception_only(problem)).strip()
            for target in left:
                yield target, Receipt(shard, 0, 0, error, 0)

    def _decoded(
        self, rows: Sequence[ImageFeatures], failures: list[Failure]
    ) -> tuple[list[tuple[str, StoredFeatures]], list[Failure]]:
        """The features of a shard, with its images if they are needed, and the images that cannot be labelled."""
        images = [(row.uri, features_from(row)) for row in rows]
        if self._images is not None:
            images, failures = self._images.added_to(images, failures)
        if self._regions is not None:
            images, failures = _with_regions(images, failures, self._regions)
        return images, failures


class _Core:
    """The core that an actor reserves: one shard is decoded on it while another is read or written.

    It counts how often each shard was begun for each output, so that one that kills its actor is set aside.
    """

    def __init__(self, starts: Starts | None) -> None:
        self._lock = threading.Lock()
        self._starts = starts

    @contextlib.contextmanager
    def decoding(self, shard: int, target: int) -> Iterator[None]:
        """Raises RuntimeError for a shard that was begun too often."""
        with self._lock:
            if self._starts is not None:
                number = shard * MAX_VOCABULARIES + target
                self._starts.count(number)
                self._starts.add(number)
            yield


class _Labeller:
    """Writes the shards of one output. number: its place among the outputs."""

    def __init__(self, number: int, target: TargetConfig, confidence_stride: int, core: _Core) -> None:
        self._number = number
        self._core = core
        self._output = Storage(target.output)
        self._embedded = target.embedded
        self._stride = confidence_stride
        self._target = target

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        """Read with the first shard: if the storage is down, that costs the shard and not the actor."""
        if self._embedded is not None:
            ray.get(self._embedded)
        return read_vocabulary(self._output)

    @cached_property
    def _decoder(self) -> Decoder:
        """Made with the first shard, since a head is read from the output too."""
        return Decoder(self._target.decode, head=read_head(self._output) if self._target.head else None)

    def label(
        self, shard: int, images: Sequence[tuple[str, StoredFeatures]], failures: Sequence[Failure], retried: int
    ) -> Receipt:
        """Label, write and commit a shard. retried: storage requests for it that were sent again before."""
        with count_retries() as retries:
            try:
                vocabulary, _ = self._vocabulary, self._decoder
                with self._core.decoding(shard, self._number):
                    labelled = [self._row(uri, features, vocabulary) for uri, features in images]
                commit = write_shard(self._output, shard, labelled, failures, vocabulary.class_names)
                statuses = [failure.status for failure in failures]
                receipt = Receipt(shard, commit.labelled, commit.failed, None, 0, statuses)
            except Exception as problem:  # the other outputs go on
                error = "".join(traceback.format_exception_only(problem)).strip()
                receipt = Receipt(shard, 0, 0, error, 0)
        return replace(receipt, retries=retried + retries.count)

    def _row(self, uri: str, features: StoredFeatures, vocabulary: Vocabulary) -> LabelledImage:
        (labels,) = decode_images(self._decoder, [features], vocabulary, self._stride)
        return labels.compressed(uri, vocabulary.colours)


def _with_regions(
    images: Sequence[tuple[str, StoredFeatures]], failures: Sequence[Failure], storage: Storage
) -> tuple[list[tuple[str, StoredFeatures]], list[Failure]]:
    """The features with the regions of their images, and a failure for each image without."""
    found, failed = [], list(failures)
    for uri, features in images:
        try:
            regions = torch.from_numpy(read_regions(storage, uri, features.image_hw))
            found.append((uri, replace(features, regions=regions)))
        except ImageError as error:
            failed.append(Failure(uri, "decode", error.status, error.reason))
    return found, failed


class _Images:
    """Reads the images that features were made from."""

    def __init__(self, config: RelabelConfig) -> None:
        self._images = open_images(config.input)
        self._readers = ReaderPool(SHARDS_AT_ONCE, config.windows, _IMAGE_TIMEOUT_S)

    def added_to(
        self, images: Sequence[tuple[str, StoredFeatures]], failures: Sequence[Failure]
    ) -> tuple[list[tuple[str, StoredFeatures]], list[Failure]]:
        """The features with their images, and a failure for each image that cannot be read any more."""
        found, failed = [], list(failures)
        for uri, features in images:
            image = self._read(uri)
            if isinstance(image, ResizedImage) and image.original_hw != features.image_hw:
                image = Failure(uri, "fetch", "fetch_failed", "the image is another one now than its features were of")
            if isinstance(image, Failure):
                failed.append(image)
            else:
                found.append((uri, replace(features, resized=pixels_on(torch.device("cpu"), image.pixels))))
        return found, failed

    def _read(self, uri: str) -> ResizedImage | Failure:
        try:
            data = fetch_image(self._images, uri)
        except ImageError as error:
            return Failure(uri, "fetch", "fetch_failed", error.reason)
        try:
            return self._readers.read(data)
        except ImageError as error:
            return Failure(uri, "decode", error.status, error.reason)
