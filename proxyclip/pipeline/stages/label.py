"""Label: an actor that holds the networks and turns the encoded images of a shard into rows."""

from __future__ import annotations

import contextlib
import dataclasses
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from itertools import count
from typing import Any

import pyarrow as pa
import ray
import torch

from proxyclip.config import SegmenterConfig, TeacherConfig
from proxyclip.dataset.rows import FAILURE_STRUCT, FEATURES_STRUCT, IMAGE_STRUCT, Failure, to_row
from proxyclip.dataset.run_record import read_head, read_names, read_vocabulary
from proxyclip.images.errors import ImageError
from proxyclip.images.readers import ReaderPool
from proxyclip.images.regions import read_regions
from proxyclip.images.sizes import ResizedImage
from proxyclip.models.adaptation.image_sums import ImageSums
from proxyclip.models.memory import BatchSize
from proxyclip.models.segmenter import Segmenter
from proxyclip.models.teachers.teacher import label_image, load_teacher
from proxyclip.models.windows import plan_windows
from proxyclip.pipeline.features import features_row
from proxyclip.pipeline.stages.actor import SHARDS_AT_ONCE, ActorConfig
from proxyclip.pipeline.stages.decode import PendingLabels, decode_images, reduced
from proxyclip.pipeline.stages.feed import Feed, Found, Labeller, Rows
from proxyclip.pipeline.stages.network_thread import NetworkThread
from proxyclip.pipeline.stages.starts import Starts, Turns
from proxyclip.recipes.teachers import check_teacher_hashes
from proxyclip.recipes.weights import check_hashes
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary

# One row per shard: rows of the schemas MASKS, FEATURES and FAILURES.
RESULT_SCHEMA = pa.schema(
    [
        ("shard", pa.int64()),
        ("images", pa.list_(IMAGE_STRUCT)),
        ("features", pa.list_(FEATURES_STRUCT)),
        ("statistics", pa.large_binary()),  # of `adapt`; null if they are not collected
        ("failures", pa.list_(FAILURE_STRUCT)),
        ("error", pa.string()),  # why the whole shard failed; then nothing of it is written
        ("retries", pa.int64()),
        ("windows", pa.int64()),
        ("read_bytes", pa.int64()),
    ]
)


class NetworkLabeller:
    """A `Labeller` with real networks. Raises `WeightsDiffer` if this machine's files are not those of the recipe."""

    def __init__(self, config: ActorConfig, segmenter: SegmenterConfig) -> None:
        segmenter = dataclasses.replace(segmenter, model=check_hashes(segmenter.model, config.weights))
        self._segmenter = Segmenter.from_config(
            segmenter,
            device=config.device,
            batch_windows=config.batch_windows,
            head=read_head(Storage(config.output)) if config.head else None,
            compiled=config.compiled,
        )
        self._confidence_stride = config.confidence_stride
        self._keep = config.codec is not None or config.collect

    @property
    def windows_at_once(self) -> int:
        return self._segmenter.windows_at_once

    def num_windows(self, image: ResizedImage) -> int:
        return plan_windows(image.original_hw, self._segmenter.config.windows).num_windows

    def label(self, images: Sequence[ResizedImage], vocabulary: Vocabulary | None) -> list[Found]:
        features = self._segmenter.encode_batch(images)
        labels: list[PendingLabels] | list[None] = [None] * len(images)
        if vocabulary is not None:
            labels = decode_images(self._segmenter, features, vocabulary, self._confidence_stride)
        kept = [dense.on_cpu() for dense in features] if self._keep else [None] * len(images)
        return [Found(*found) for found in zip(labels, kept, strict=True)]


class TeacherLabeller:
    """A `Labeller` with a teacher. An image is its only window. Raises `WeightsDiffer` as `NetworkLabeller` does."""

    windows_at_once = 1

    def __init__(self, config: ActorConfig, teacher: TeacherConfig) -> None:
        check_teacher_hashes(teacher.model, config.weights)
        self._config = teacher
        self._teacher = load_teacher(teacher, config.device)
        self._image = BatchSize("images", 1)
        self._confidence_stride = config.confidence_stride

    def num_windows(self, image: ResizedImage) -> int:
        return 1

    def label(self, images: Sequence[ResizedImage], vocabulary: Vocabulary | None) -> list[Found]:
        if vocabulary is None:
            raise ValueError(f"Method {self._config.model.method} needs a vocabulary.")
        return [Found(self._image.fit(partial(self._reduced, image, vocabulary))) for image in images]

    def _reduced(self, image: ResizedImage, vocabulary: Vocabulary, _: int) -> PendingLabels:
        labels = label_image(self._teacher, image.pixels, vocabulary, self._config)
        return reduced(labels, vocabulary.num_classes, self._confidence_stride)


def labeller(config: ActorConfig) -> Labeller:
    """What labels images by a configuration."""
    if isinstance(config.segmenter, TeacherConfig):
        return TeacherLabeller(config, config.segmenter)
    return NetworkLabeller(config, config.segmenter)


class LabelShards:
    """Rows of `read.SHARD_SCHEMA` to rows of RESULT_SCHEMA; Ray Data calls it from several threads.

    Reader processes read images ahead of the networks, which run in one thread. An error of an image becomes a row of
    its failures; any other error fails the shard, which then stays pending.

    starts: counts how often each shard was started. embedded: resolves once the text embeddings are in the output.
    make_labeller: replaces the networks, for tests and benchmarks.
    """

    def __init__(
        self,
        config: ActorConfig,
        starts: Starts | None = None,
        embedded: ray.ObjectRef | None = None,
        make_labeller: Callable[[ActorConfig], Labeller] = labeller,
    ) -> None:
        self._config = config
        self._starts = starts
        self._embedded = embedded
        self._turns = Turns(SHARDS_AT_ONCE)
        self._order = count()
        self._networks = NetworkThread(config.threads)
        # An error here fails the shards, with its reason. An actor that cannot start would be restarted for ever.
        self._labeller = self._networks.submit(next(self._order), make_labeller, config)
        num_readers = max(config.threads, 2)
        self._images_ahead = 2 * num_readers
        windows = config.segmenter.windows if isinstance(config.segmenter, SegmenterConfig) else None
        self._readers = ReaderPool(num_readers, windows, config.image_timeout_s)
        self._pool = ThreadPoolExecutor(num_readers, "read")  # each thread waits for a reader process

    def close(self) -> None:
        """End the reader processes."""
        self._readers.close()

    @cached_property
    def _vocabulary(self) -> Vocabulary | None:
        """Read with the first shard: if the storage is down, that costs the shard and not the actor."""
        if not self._config.masks:
            return None
        if self._embedded is not None:
            ray.get(self._embedded)
        read = read_vocabulary if isinstance(self._config.segmenter, SegmenterConfig) else read_names
        return read(Storage(self._config.output))

    @cached_property
    def _sums(self) -> ImageSums | None:
        config, vocabulary = self._config, self._vocabulary
        if not config.collect or vocabulary is None or not isinstance(config.segmenter, SegmenterConfig):
            return None
        return ImageSums(vocabulary, config.segmenter.decode.logit_scale)

    def __call__(self, rows: pa.Table) -> pa.Table:
        return pa.Table.from_pylist([self._label_row(row) for row in rows.to_pylist()], schema=RESULT_SCHEMA)

    def _label_row(self, row: dict[str, Any]) -> dict[str, Any]:
        found = Rows()
        error = row["error"]
        if error is None:
            try:
                with self._turn(row["shard"]):
                    found = self._label(row["uris"], row["data"], row["fetch_errors"])
            except Exception as problem:  # the run goes on; the driver lists the error
                error = "".join(traceback.format_exception_only(problem)).strip()
        etags = dict(zip(row["uris"], row["etags"], strict=True)) if found.features else {}
        return {
            "shard": row["shard"],
            "images": [to_row(image) for image in found.images],
            "features": [vars(features_row(uri, etags[uri], features)) for uri, features in found.features],
            "statistics": None if found.statistics is None else found.statistics.to_bytes(),
            "failures": [vars(failure) for failure in found.failures],
            "error": error,
            "retries": row["retries"],
            "windows": found.windows,
            "read_bytes": sum(len(data) for data in row["data"] if data is not None),
        }

    @contextlib.contextmanager
    def _turn(self, shard: int) -> Iterator[None]:
        """Count the start of a shard. One that was started before, by a worker that died, runs alone."""
        if self._starts is None:
            yield
            return
        with self._turns.take(alone=self._starts.count(shard) > 0):
            self._starts.add(shard)
            yield

    def _label(self, uris: Sequence[str], data: Sequence[bytes | None], fetch_errors: Sequence[str | None]) -> Rows:
        codec = self._config.codec
        if self._sums is not None:
            torch.set_num_threads(1)  # of this thread: so that sums are rounded the same way with more cores
        feed = Feed(self._networks, self._labeller.result(), self._vocabulary, next(self._order), codec, self._sums)
        failures = []
        for uri, image in self._read(uris, data, fetch_errors):
            if isinstance(image, Failure):
                failures.append(image)
            else:
                feed.add(uri, image)
        rows = feed.finish()
        rows.failures = failures + rows.failures
        return rows

    def _read(
        self, uris: Sequence[str], data: Sequence[bytes | None], fetch_errors: Sequence[str | None]
    ) -> Iterator[tuple[str, ResizedImage | Failure]]:
        """Images in order; some of them are read ahead."""
        ahead: deque[tuple[str, Future[ResizedImage | Failure]]] = deque()
        for uri, encoded, fetch_error in zip(uris, data, fetch_errors, strict=True):
            ahead.append((uri, self._pool.submit(self._read_image, uri, encoded, fetch_error)))
            if len(ahead) > self._images_ahead:
                first, future = ahead.popleft()
                yield first, future.result()
        for uri, future in ahead:
            yield uri, future.result()

    def _read_image(self, uri: str, data: bytes | None, fetch_error: str | None) -> ResizedImage | Failure:
        if data is None:
            return Failure(uri, "fetch", "fetch_failed", fetch_error or "no data")
        try:
            image = self._readers.read(data)
            if self._config.regions is None or not self._config.masks:
                return image
            regions = read_regions(Storage(self._config.regions), uri, image.original_hw)
            return dataclasses.replace(image, regions=regions)
        except ImageError as error:
            return Failure(uri, "decode", error.status, error.reason)
