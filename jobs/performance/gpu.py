"""Labelling on a CUDA device: the engine beside the plain implementation in float16, seeded networks of full size."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch

from performance.plain import PlainSegmenter
from performance.seeded import drawn_images, seeded_clip, seeded_proxy, seeded_vocabulary
from performance.tables import Row
from proxyclip.config import Dtype, ModelConfig, SegmenterConfig
from proxyclip.models.cost import gflop_per_image
from proxyclip.models.features import DenseFeatures
from proxyclip.models.segmenter import Segmenter
from proxyclip.pipeline.stages.decode import decode_images
from proxyclip.vocabulary.names import Vocabulary

IMAGE_HW = (375, 500)
QUERIES = (21, 150, 847)

# Dense bfloat16 peaks of the data sheets, in TFLOP/s, by a part of the device's name.
_PEAKS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0}

# Batches of windows of each engine whose networks are measured.
_BATCHES = {"float32": (32,), "bfloat16": (8, 32, 128), "bfloat16, compiled": (64, 128), "float16": (64,)}

_CUDA = torch.device("cuda")


class Case:
    """Images, vocabularies of three sizes, and the labels of the plain implementation in float32."""

    def __init__(self, num_images: int) -> None:
        self.images = drawn_images(min(num_images, 8), IMAGE_HW) * max(num_images // 8, 1)
        exact = PlainSegmenter(seeded_clip().to(_CUDA), seeded_proxy().to(_CUDA), SegmenterConfig())
        found = exact.encode(self.images[0])
        windows = torch.stack(found.windows)
        self.vocabularies = {number: seeded_vocabulary(windows, number) for number in QUERIES}
        self.labels = {number: exact.decode(found, each) for number, each in self.vocabularies.items()}


def measure_gpu(num_images: int, rounds: int, batch_windows: int) -> Iterator[list[Row]]:
    """Three tables: image to labels, labels from features, and the networks by precision and batch."""
    case = Case(num_images)
    engines = {
        "float32": segmenter("float32", batch_windows),
        "bfloat16": segmenter("bfloat16", batch_windows),
        "float16": segmenter("float16", batch_windows),
        "bfloat16, compiled": segmenter("bfloat16", batch_windows, compiled=True),
    }
    yield _image_to_labels(case, engines, rounds)
    yield _decoding(case, engines["bfloat16"], rounds)
    yield _networks(case, engines, rounds)


def _image_to_labels(case: Case, engines: dict[str, Segmenter], rounds: int) -> list[Row]:
    """Plain and engine by turns, for growing vocabularies. Times are until the labels are on the CPU."""
    plain = PlainSegmenter(seeded_clip().to(_CUDA).half(), seeded_proxy().to(_CUDA).half(), SegmenterConfig())
    rows = []
    for number, vocabulary in case.vocabularies.items():
        works: dict[str, Callable[[], np.ndarray]] = {
            "plain, float16": functools.partial(plain.predict, case.images[0], vocabulary)
        }
        for name, engine in engines.items():
            if name != "float32":
                works[name] = functools.partial(_label, engine, case.images, vocabulary)
        equal = {name: float((work() == case.labels[number]).mean()) for name, work in works.items()}
        times: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(rounds):
            for name, work in works.items():
                times[name].append(seconds(work) / (1 if name.startswith("plain") else len(case.images)))
        plain_s = statistics.median(times["plain, float16"])
        for name, found in times.items():
            of_image = statistics.median(found)
            rows.append(
                {
                    "queries": str(number),
                    "": name,
                    "ms an image": f"{1e3 * of_image:.2f}",
                    "images/s": f"{1 / of_image:.0f}",
                    "times faster": f"{plain_s / of_image:.1f}",
                    "labels equal to float32": f"{100 * equal[name]:.2f} %",
                }
            )
    return rows


def _networks(case: Case, engines: dict[str, Segmenter], rounds: int) -> list[Row]:
    """Both networks and the proxy attention, from pixels on the CPU to features on the GPU."""
    peak = next((value for name, value in _PEAKS.items() if name in torch.cuda.get_device_name()), None)
    matmul = matmul_tflops()
    gflop = gflop_per_image(SegmenterConfig(), IMAGE_HW)
    rows = []
    for name, batches in _BATCHES.items():
        engine = engines[name]
        images = case.images[:16] if name == "float32" else case.images
        encode = functools.partial(engine.encode_batch, images)
        for batch in batches:
            engine.windows_at_once = batch
            first_s = seconds(encode)
            torch.cuda.reset_peak_memory_stats()
            of_image = statistics.median(seconds(encode) for _ in range(rounds)) / len(images)
            rate = gflop / of_image / 1e3
            rows.append(
                {
                    "networks": name,
                    "windows a batch": str(batch),
                    "ms an image": f"{1e3 * of_image:.2f}",
                    "TFLOP/s": f"{rate:.0f}",
                    "of a matrix product": f"{100 * rate / matmul:.0f} % of {matmul:.0f}",
                    "of the data sheet": f"{100 * rate / peak:.0f} % of {peak:.0f}" if peak else "",
                    "peak GB": f"{torch.cuda.max_memory_allocated() / 1e9:.1f}",
                    "first time, s": f"{first_s:.1f}",
                }
            )
    return rows


def _decoding(case: Case, engine: Segmenter, rounds: int) -> list[Row]:
    """Labels on the CPU from features on the GPU, many images in a row."""
    features = engine.encode_batch(case.images)
    rows = []
    for number, vocabulary in case.vocabularies.items():
        work = functools.partial(decoded_masks, engine, features, vocabulary)
        work()
        of_image = statistics.median(seconds(work) for _ in range(rounds)) / len(features)
        rows.append({"queries": str(number), "labels from features, ms an image": f"{1e3 * of_image:.2f}"})
    return rows


def matmul_tflops(side: int = 8192) -> float:
    """The speed of a large bfloat16 matrix product, in TFLOP/s."""
    a, b = (torch.randn(side, side, device=_CUDA, dtype=torch.bfloat16) for _ in range(2))
    a @ b
    return 2e-12 * side**3 * 10 / seconds(lambda: [a @ b for _ in range(10)])


def segmenter(dtype: Dtype, batch_windows: int, *, compiled: bool = False) -> Segmenter:
    """The engine with seeded networks of full size."""
    config = SegmenterConfig(ModelConfig(dtype=dtype))
    networks = seeded_clip(), seeded_proxy()
    return Segmenter(*networks, config, device=_CUDA, batch_windows=batch_windows, compiled=compiled)


def _label(engine: Segmenter, images: list[np.ndarray], vocabulary: Vocabulary) -> np.ndarray:
    """All images labelled; the mask of the first."""
    return decoded_masks(engine, engine.encode_batch(images), vocabulary)


def decoded_masks(engine: Segmenter, features: list[DenseFeatures], vocabulary: Vocabulary) -> np.ndarray:
    """Labels of all images, fetched; the mask of the first."""
    masks = [each.wait().mask for each in decode_images(engine, features, vocabulary, 4)]
    return masks[0]


def seconds(work: Callable[[], object]) -> float:
    """How long the device and its host take."""
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started
