"""Label stage: an actor that holds the networks and turns encoded images into masks."""

from __future__ import annotations

import contextlib
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import torch

from proxyclip.config import SegmenterConfig
from proxyclip.dataset.masks import encode_confidence, encode_mask
from proxyclip.images.readers import DecoderPool
from proxyclip.images.reading import ImageError, ResizedImage
from proxyclip.models.decoding.decode import Decoded
from proxyclip.models.decoding.reduce import class_sums, reduce_confidence
from proxyclip.models.memory import OutOfMemory
from proxyclip.models.segmenter import Segmenter
from proxyclip.models.windows import plan_windows
from proxyclip.pipeline.prepare import read_vocabulary
from proxyclip.pipeline.stages.network_thread import Device
from proxyclip.pipeline.stages.starts import Starts, Turns
from proxyclip.storage.retry import take_retries
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary, ignore_label

# Images go to the networks together until they make this many full batches of windows.
BATCHES_AT_ONCE = 4

# Groups of images that wait for the networks or are in them, of one shard: one to work on, one to go on with.
GROUPS_AHEAD = 2

# Shards that one actor works on: the second is decoded and handed over while the first is in the networks.
SHARDS_AT_ONCE = 2

Group: TypeAlias = "list[tuple[str, ResizedImage]]"
Labels: TypeAlias = "Future[list[dict[str, Any]] | None]"
Decoding: TypeAlias = "tuple[str, ResizedImage | None, dict[str, str]]"

_IMAGE = pa.struct(
    [
        ("uri", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("mask", pa.large_binary()),  # PNG, as is the confidence; raw ones would fill the object store
        ("confidence", pa.large_binary()),
        ("classes", pa.list_(pa.int32())),
        ("pixels", pa.list_(pa.int64())),
        ("class_confidence", pa.list_(pa.float64())),
        ("mean_confidence", pa.float64()),
        ("ignored", pa.int64()),
    ]
)
_FAILURE = pa.struct([(name, pa.string()) for name in ("uri", "stage", "status", "reason")])
RESULT_SCHEMA = pa.schema(
    [
        ("shard", pa.int64()),
        ("images", pa.list_(_IMAGE)),
        ("failures", pa.list_(_FAILURE)),
        ("error", pa.string()),  # why the whole shard failed; then nothing of it is written
        ("retries", pa.int64()),
    ]
)


@dataclass(frozen=True)
class WorkerConfig:
    """All an actor is made from: small, since Ray keeps it for restarts."""

    segmenter: SegmenterConfig
    output: str
    device: str
    threads: int
    batch_windows: int
    confidence_stride: int
    image_timeout_s: float


class LabelShards:
    """Rows of `source.SHARD_SCHEMA` to rows of RESULT_SCHEMA, from several threads.

    Processes of its own decode ahead of the networks, which one thread feeds. What is wrong with an image costs that
    image; what is wrong with anything else costs the shard, which stays pending.
    """

    def __init__(self, config: WorkerConfig, starts: Starts | None = None) -> None:
        self._config = config
        self._starts = starts
        self._turns = Turns(SHARDS_AT_ONCE)
        self._order = count()
        self._device = Device(config.threads)
        self._segmenter = self._device.submit(next(self._order), self._load).result()
        self._ahead = max(config.threads, 2)
        self._decoders = DecoderPool(self._ahead, config.segmenter.windows, config.image_timeout_s)
        self._pool = ThreadPoolExecutor(self._ahead, "decode")  # each waits for a decoder

    def _load(self) -> Segmenter:
        config = self._config
        return Segmenter.from_config(config.segmenter, device=config.device, batch_windows=config.batch_windows)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        """Read with the first shard, which a storage that is down then costs, not the actor."""
        return read_vocabulary(Storage(self._config.output))

    def __call__(self, rows: pa.Table) -> pa.Table:
        results = []
        for row in rows.to_pylist():
            images: list[dict[str, Any]] = []
            failures: list[dict[str, str]] = []
            error = row["error"]
            try:
                if error is None:
                    with self._turn(row["shard"]):
                        decoded = self._decoded(row["uris"], row["data"], row["fetch_errors"])
                        images, failures = self._label(decoded, next(self._order))
            except Exception as problem:  # the run goes on; the driver lists it
                error = "".join(traceback.format_exception_only(problem)).strip()
            retries = row["retries"] + take_retries()
            results.append(
                {"shard": row["shard"], "images": images, "failures": failures, "error": error, "retries": retries}
            )
        return pa.Table.from_pylist(results, schema=RESULT_SCHEMA)

    @contextlib.contextmanager
    def _turn(self, shard: int) -> Iterator[None]:
        """Note that a shard is started. One that was before, under a worker that died, has the worker for itself."""
        if self._starts is None:
            yield
            return
        with self._turns.take(alone=self._starts.count(shard) > 0):
            self._starts.add(shard)
            yield

    def _label(self, decoded: Iterator[Decoding], order: int) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        """Rows of images and failures. order: of this shard among all; earlier ones go to the networks first."""
        labelled: list[dict[str, Any]] = []
        failures: list[dict[str, str]] = []
        too_large: list[dict[str, str]] = []
        ahead: deque[tuple[Group, Labels]] = deque()

        def submit(group: Group) -> None:
            ahead.append((group, self._device.submit(order, self._labels, group)))

        def collect(at_most: int) -> None:
            while len(ahead) > at_most:
                group, labels = ahead.popleft()
                found = labels.result()
                if found is not None:
                    labelled.extend(compressed(image, self._vocabulary.colours) for image in found)
                elif len(group) > 1:  # memory did not suffice; one by one the result is the same
                    for one in group:
                        submit([one])
                else:
                    ((uri, image),) = group
                    height, width = image.original_hw
                    reason = f"{width} x {height} pixels need more memory than there is"
                    too_large.append({"uri": uri, "stage": "segment", "status": "out_of_memory", "reason": reason})

        group: Group = []
        windows = 0
        for uri, image, failure in decoded:
            if image is None:
                failures.append({"uri": uri, **failure})
                continue
            group.append((uri, image))
            windows += plan_windows(image.original_hw, self._config.segmenter.windows).num_windows
            if windows >= BATCHES_AT_ONCE * self._segmenter.windows_at_once:
                submit(group)
                group, windows = [], 0
                collect(GROUPS_AHEAD - 1)
        if group:
            submit(group)
        collect(0)
        if len(too_large) > 1 and not labelled:  # not their fault, and must not be recorded as theirs
            raise OutOfMemory(f"none of the {len(too_large)} images of the shard fitted; {too_large[0]['reason']}")
        return labelled, failures + too_large

    def _decoded(
        self, uris: Sequence[str], data: Sequence[bytes | None], fetch_errors: Sequence[str | None]
    ) -> Iterator[Decoding]:
        """Images in order, a few of them decoded ahead; None with a failure for what is none."""
        ahead: deque[tuple[str, Future[Any]]] = deque()
        for uri, encoded, fetch_error in zip(uris, data, fetch_errors, strict=True):
            ahead.append((uri, self._pool.submit(self._decode, encoded, fetch_error)))
            if len(ahead) > 2 * self._ahead:
                first, future = ahead.popleft()
                yield first, *future.result()
        for uri, future in ahead:
            yield uri, *future.result()

    def _decode(self, data: bytes | None, fetch_error: str | None) -> tuple[ResizedImage | None, dict[str, str]]:
        if data is None:
            return None, {"stage": "fetch", "status": "fetch_failed", "reason": fetch_error or "no data"}
        try:
            return self._decoders.read(data), {}
        except ImageError as error:
            return None, {"stage": "decode", "status": error.status, "reason": error.reason}

    def _labels(self, group: Group) -> list[dict[str, Any]] | None:
        """What is stored of each image, or None where memory does not suffice."""
        try:
            features = self._segmenter.encode_batch([image for _, image in group])
            found = [self._segmenter.labels(dense, self._vocabulary) for dense in features]
            # Not image by image: asking a GPU for results waits until it has done all it was told to.
            num_classes, stride = self._vocabulary.num_classes, self._config.confidence_stride
            rows = [stored(labels, num_classes, stride) for labels in found]
            return [{"uri": uri, **row} for (uri, _), row in zip(group, rows, strict=True)]
        except (OutOfMemory, MemoryError, torch.OutOfMemoryError):
            return None


@torch.inference_mode()
def stored(labels: Decoded, num_classes: int, confidence_stride: int) -> dict[str, Any]:
    """What is stored of an image's labels, mask and confidence as arrays yet (see `compressed`).

    Confidences of classes are means over the pixels that have a label.
    """
    ignore = ignore_label(num_classes)
    winner = labels.winner.clamp(max=num_classes)
    pixels, sums = (part.cpu().numpy() for part in class_sums(winner, labels.confidence, num_classes + 1))
    mask = labels.winner.to(torch.uint8) if ignore == 255 else labels.winner
    classes = np.flatnonzero(pixels[:num_classes])
    labelled = int(pixels[classes].sum())
    return {
        "height": mask.shape[0],
        "width": mask.shape[1],
        "mask": mask.cpu().numpy().astype(np.uint8 if ignore == 255 else np.uint16, copy=False),
        "confidence": reduce_confidence(labels.confidence, confidence_stride).cpu().numpy(),
        "classes": classes.tolist(),
        "pixels": pixels[classes].tolist(),
        "class_confidence": (sums[classes] / pixels[classes]).tolist(),
        "mean_confidence": float(sums[classes].sum() / labelled) if labelled else 0.0,
        "ignored": int(pixels.sum() - labelled),
    }


def compressed(image: dict[str, Any], colours: np.ndarray) -> dict[str, Any]:
    """A row of `stored` with mask and confidence as PNG. Other threads go on meanwhile."""
    return {
        **image,
        "mask": encode_mask(image["mask"], colours),
        "confidence": encode_confidence(image["confidence"]),
    }
