"""Label stage: an actor that holds the networks and turns encoded images into raw masks."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from proxyclip.config import SegmenterConfig
from proxyclip.dataset.decoder import DecoderPool
from proxyclip.dataset.masks import reduce_confidence
from proxyclip.dataset.retry import take_retries
from proxyclip.dataset.store import Storage
from proxyclip.image import ImageError
from proxyclip.models.memory import OutOfMemory
from proxyclip.models.segmentation import Segmentation
from proxyclip.models.segmenter import Segmenter
from proxyclip.models.windows import plan_windows
from proxyclip.pipeline.prepare import read_vocabulary
from proxyclip.pipeline.starts import Starts
from proxyclip.vocabulary import Vocabulary, ignore_label

# Images go to the segmenter until they make this many full batches of windows.
BATCHES_AT_ONCE = 4

_IMAGE = pa.struct(
    [
        ("uri", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("mask", pa.large_binary()),  # raw uint8 or uint16, (height, width)
        ("confidence", pa.large_binary()),  # raw uint8, (ceil(height / stride), ceil(width / stride))
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
    """Rows of `source.SHARD_SCHEMA` to rows of RESULT_SCHEMA.

    Decodes in processes of its own ahead of the networks. What is wrong with an image costs that image; what is
    wrong with anything else costs the shard, which stays pending.
    """

    def __init__(self, config: WorkerConfig, starts: Starts | None = None) -> None:
        torch.set_num_threads(config.threads)
        self._config = config
        self._starts = starts
        self._segmenter = Segmenter.from_config(
            config.segmenter, device=config.device, batch_windows=config.batch_windows
        )
        self._ahead = max(config.threads, 2)
        self._decoders = DecoderPool(self._ahead, config.image_timeout_s)
        self._pool = ThreadPoolExecutor(self._ahead, "decode")  # each waits for a decoder

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
                    if self._starts is not None:
                        self._starts.check(row["shard"])
                    images, failures = self._label(row["uris"], row["data"], row["fetch_errors"])
            except Exception as problem:  # the run goes on; the driver lists it
                error = "".join(traceback.format_exception_only(problem)).strip()
            retries = row["retries"] + take_retries()
            results.append(
                {"shard": row["shard"], "images": images, "failures": failures, "error": error, "retries": retries}
            )
        return pa.Table.from_pylist(results, schema=RESULT_SCHEMA)

    def _label(
        self, uris: Sequence[str], data: Sequence[bytes | None], fetch_errors: Sequence[str | None]
    ) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
        labelled: list[dict[str, Any]] = []
        failures: list[dict[str, str]] = []
        too_large: list[dict[str, str]] = []
        group: list[tuple[str, np.ndarray]] = []
        for uri, image, failure in self._decoded(uris, data, fetch_errors):
            if failure is not None:
                failures.append({"uri": uri, **failure})
                continue
            group.append((uri, image))
            if self._is_full(group):
                self._segment(group, labelled, too_large)
                group = []
        self._segment(group, labelled, too_large)
        if len(too_large) > 1 and not labelled:  # not their fault, and must not be recorded as theirs
            raise OutOfMemory(f"none of the {len(too_large)} images of the shard fitted; {too_large[0]['reason']}")
        return labelled, failures + too_large

    def _decoded(
        self, uris: Sequence[str], data: Sequence[bytes | None], fetch_errors: Sequence[str | None]
    ) -> Iterator[tuple[str, np.ndarray, dict[str, str] | None]]:
        """Images in order, a few of them decoded ahead."""
        ahead: deque[tuple[str, Future[Any]]] = deque()
        for uri, encoded, fetch_error in zip(uris, data, fetch_errors, strict=True):
            ahead.append((uri, self._pool.submit(self._decode, encoded, fetch_error)))
            if len(ahead) > 2 * self._ahead:
                first, future = ahead.popleft()
                yield first, *future.result()
        for uri, future in ahead:
            yield uri, *future.result()

    def _is_full(self, group: Sequence[tuple[str, np.ndarray]]) -> bool:
        windows = self._config.segmenter.windows
        count = sum(plan_windows((image.shape[0], image.shape[1]), windows).num_windows for _, image in group)
        return count >= BATCHES_AT_ONCE * self._segmenter.windows_at_once

    def _decode(self, data: bytes | None, fetch_error: str | None) -> tuple[np.ndarray | None, dict[str, str] | None]:
        if data is None:
            return None, {"stage": "fetch", "status": "fetch_failed", "reason": fetch_error or "no data"}
        try:
            return self._decoders.decode(data), None
        except ImageError as error:
            return None, {"stage": "decode", "status": error.status, "reason": error.reason}

    def _segment(
        self,
        group: Sequence[tuple[str, np.ndarray]],
        labelled: list[dict[str, Any]],
        too_large: list[dict[str, str]],
    ) -> None:
        """Label a group together. Where memory does not suffice, each of its images alone, which is the same."""
        try:
            labelled += self._labels(group)
            return
        except (OutOfMemory, MemoryError):
            pass  # goes on below, when the error has let go of the tensors it saw
        if len(group) > 1:
            for one in group:
                self._segment([one], labelled, too_large)
        else:
            ((uri, image),) = group
            reason = f"{image.shape[1]} x {image.shape[0]} pixels need more memory than there is"
            too_large.append({"uri": uri, "stage": "segment", "status": "out_of_memory", "reason": reason})

    def _labels(self, group: Sequence[tuple[str, np.ndarray]]) -> list[dict[str, Any]]:
        features = self._segmenter.encode_batch([image for _, image in group])
        return [
            {"uri": uri, **_summary(self._segmenter.decode(dense, self._vocabulary), self._config.confidence_stride)}
            for (uri, _), dense in zip(group, features, strict=True)
        ]


def _summary(result: Segmentation, confidence_stride: int) -> dict[str, Any]:
    """What is stored of a segmentation; confidences are means over pixels that have a label."""
    num_classes = result.vocabulary.num_classes
    flat, confidence = result.mask.ravel(), result.confidence.ravel()
    size = ignore_label(num_classes) + 1
    pixels = np.bincount(flat, minlength=size)
    sums = np.bincount(flat, weights=confidence, minlength=size)
    classes = np.flatnonzero(pixels[:num_classes])
    labelled = int(pixels[classes].sum())
    return {
        "height": result.mask.shape[0],
        "width": result.mask.shape[1],
        "mask": result.mask.tobytes(),
        "confidence": reduce_confidence(result.confidence, confidence_stride).tobytes(),
        "classes": classes.tolist(),
        "pixels": pixels[classes].tolist(),
        "class_confidence": (sums[classes] / pixels[classes]).tolist(),
        "mean_confidence": float(sums[classes].sum() / labelled) if labelled else 0.0,
        "ignored": int(flat.size - labelled),
    }
