"""The engine against the plain implementation: the same seeded networks, measured by turns."""

from __future__ import annotations

import functools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from performance.plain import PlainFeatures, PlainSegmenter, decode_plainly
from performance.seeded import drawn_images, seeded_clip, seeded_proxy, seeded_vocabulary
from performance.tables import Row
from proxyclip.config import DecodeConfig, Dtype, ModelConfig, SegmenterConfig
from proxyclip.images.sizes import resize_image
from proxyclip.models.attention import mix_by_proxy, proxy_attention, resize_values
from proxyclip.models.cost import gflop_per_image
from proxyclip.models.decoding.decode import decode_features
from proxyclip.models.decoding.queries import Queries
from proxyclip.models.features import DenseFeatures
from proxyclip.models.kernels.of_device import network_kernels
from proxyclip.models.kernels.precision import torch_dtype
from proxyclip.models.segmenter import Segmenter
from proxyclip.models.text import cached_embeddings
from proxyclip.models.windows import plan_windows
from proxyclip.vocabulary.names import Vocabulary

IMAGE_HW = (375, 500)
QUERIES = (21, 150, 847)


def measure_encoders(device_name: str, num_images: int, rounds: int, batch_windows: int) -> list[Row]:
    """Image to labels with 21 queries: plain in float32, and the engine in each precision.

    num_images: for the engine; the plain implementation takes the first of them.
    """
    images = drawn_images(num_images, IMAGE_HW)
    device = torch.device(device_name)
    plain = PlainSegmenter(seeded_clip().to(device), seeded_proxy().to(device), SegmenterConfig())
    found = plain.encode(images[0])
    vocabulary = seeded_vocabulary(torch.stack(found.windows), QUERIES[0])
    dtypes: tuple[Dtype, ...] = ("float32", "bfloat16")
    engines = {
        dtype: Segmenter(
            seeded_clip(),
            seeded_proxy(),
            SegmenterConfig(ModelConfig(dtype=dtype)),
            device=device,
            batch_windows=batch_windows,
        )
        for dtype in dtypes
    }

    def label(engine: Segmenter) -> list[np.ndarray]:
        return [engine.decode(each, vocabulary).mask for each in engine.encode_batch(images)]

    labels = plain.decode(found, vocabulary)
    agreement = {dtype: float((label(engine)[0] == labels).mean()) for dtype, engine in engines.items()}
    plain_times: list[float] = []
    times: dict[Dtype, list[float]] = {dtype: [] for dtype in dtypes}
    for _ in range(rounds):  # by turns, because a machine's speed changes over minutes
        plain_times.append(_seconds(lambda: plain.predict(images[0], vocabulary), device))
        for dtype, engine in engines.items():
            times[dtype].append(_seconds(functools.partial(label, engine), device) / len(images))
    plain_s = statistics.median(plain_times)
    rows = [_encoder_row("plain, float32", plain_s, plain_s, matmul_gflops("float32", device), 1.0)]
    for dtype, engine in engines.items():
        engine_s = statistics.median(times[dtype])
        rows.append(_encoder_row(f"engine, {dtype}", engine_s, plain_s, matmul_gflops(dtype, device), agreement[dtype]))
        rows[-1]["time in"] = _stages(engine, images[0], vocabulary, device)
        if device.type == "cuda":
            _peak(device_name, reset=True)
            label(engine)
            rows[-1]["peak MB"] = f"{_peak(device_name):.0f}"
    return rows


def measure_decoding(device_name: str) -> list[Row]:
    """Labels from features, for growing vocabularies: time, memory and labels of both."""
    rows, device = [], torch.device(device_name)
    for num_queries in QUERIES:
        case = DecodingCase(num_queries, device_name)
        different = int((case.engine() != case.plain()).sum())
        plain_s, engine_s = _median_s(case.plain, device, 3), _median_s(case.engine, device, 5)
        rows.append(
            {
                "queries": str(num_queries),
                "plain, s": f"{plain_s:.3f}",
                "engine, s": f"{engine_s:.3f}",
                "times faster": f"{plain_s / engine_s:.1f}",
                "labels that differ": f"{different} of {IMAGE_HW[0] * IMAGE_HW[1]}",
                "plain, MB": f"{_peak_mb('plain', num_queries, device_name):.0f}",
                "engine, MB": f"{_peak_mb('engine', num_queries, device_name):.0f}",
            }
        )
    return rows


def measure_text(device_name: str) -> list[Row]:
    """Text embeddings of the 150 classes of ADE20K: computed, and read from the cache."""
    clip, queries = seeded_clip().to(device_name), Vocabulary.load("ade20k").queries
    with tempfile.TemporaryDirectory() as folder:
        times = []
        for _ in range(2):
            started = time.perf_counter()
            cached_embeddings(clip, queries, Path(folder))
            times.append(time.perf_counter() - started)
    return [{"queries": str(len(queries)), "computed, s": f"{times[0]:.1f}", "cached, s": f"{times[1]:.1f}"}]


class DecodingCase:
    """Smooth random features of an image, and queries that give it many different labels."""

    def __init__(self, num_queries: int, device: str) -> None:
        plan = plan_windows(IMAGE_HW, SegmenterConfig().windows)
        generator = torch.Generator().manual_seed(0)
        coarse = torch.randn(plan.num_windows, 512, 5, 5, generator=generator)
        grids = F.interpolate(coarse, size=(42, 42), mode="bilinear").permute(0, 2, 3, 1)
        grids = F.normalize(grids + 0.3 * torch.randn(grids.shape, generator=generator), dim=-1).to(device)
        self.vocabulary = seeded_vocabulary(grids, num_queries)
        self.plan = plan
        self.windows = grids  # (windows, 42, 42, 512)
        self._plain = PlainFeatures(list(grids), plan)
        embeddings = torch.tensor(self.vocabulary.embeddings, device=device)
        self._queries = Queries.of(embeddings, torch.tensor(self.vocabulary.query_class, device=device))

    def plain(self) -> npt.NDArray[np.int64]:
        """Labels by the plain implementation."""
        return decode_plainly(self._plain, self.vocabulary, DecodeConfig())

    def engine(self) -> npt.NDArray[np.int32]:
        """Labels by the engine."""
        windows = self.windows.unflatten(0, (len(self.plan.y.starts), len(self.plan.x.starts)))
        features = DenseFeatures(windows, self.plan, torch.empty(0))
        with torch.inference_mode():
            decoded = decode_features(features, self._queries, logit_scale=40.0)
            return decoded.winner.cpu().numpy()


def matmul_gflops(dtype: Dtype, device: torch.device) -> float:
    """The speed of a matrix product of the size that takes most of the time, in GFLOP/s."""
    rows = 1765 if device.type == "cpu" else 1765 * 32
    a = torch.randn(rows, 768, device=device).to(torch_dtype(dtype))
    linear = torch.nn.Linear(768, 3072, device=device).to(torch_dtype(dtype))
    with torch.inference_mode():
        return 2 * rows * 768 * 3072 / _median_s(lambda: linear(a), device, 15) / 1e9


def _peak_mb(kind: str, num_queries: int, device: str) -> float:
    """Memory that decoding one image adds at its peak, in MB, in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(_decode_once, (kind, num_queries, device)))


def _decode_once(kind: str, num_queries: int, device: str) -> float:
    case = DecodingCase(num_queries, device)
    before = _peak(device, reset=True)
    getattr(case, kind)()
    return _peak(device) - before


def _peak(device: str, *, reset: bool = False) -> float:
    """Peak memory of this process, in MB. `reset` lowers the peak to the present use first."""
    if device == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated() / 1e6
    if reset:  # a child inherits its parent's peak
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


def _stages(engine: Segmenter, image: np.ndarray, vocabulary: Vocabulary, device: torch.device) -> str:
    """The share of the time that each part of labelling an image takes."""
    windows = torch.rand(engine.windows_at_once, 3, 336, 336, device=device)
    model = engine.config.model
    proxy = engine.proxy
    if proxy is None:
        raise AssertionError("ProxyCLIP has a proxy")

    def mix(features: Tensor, values: Tensor, grid_hw: tuple[int, int], proxy_hw: tuple[int, int]) -> Tensor:
        weights = proxy_attention(features, beta=model.beta, gamma=model.gamma, dtype=torch_dtype(model.dtype))
        return engine.clip.project(mix_by_proxy(weights, resize_values(values, grid_hw, proxy_hw)))

    with torch.inference_mode(), network_kernels(device):
        tokens, grid_hw = engine.clip.trunk(windows)
        features, proxy_hw = proxy(windows)
        values = engine.clip.values(tokens, grid_hw)
        times = {
            "proxy": _median_s(lambda: proxy(windows), device, 3),
            "CLIP": _median_s(lambda: engine.clip.values(*engine.clip.trunk(windows)), device, 3),
            "proxy attention": _median_s(lambda: mix(features, values, grid_hw, proxy_hw), device, 3),
        }
    dense = engine.encode(image)
    plan = dense.plan
    times = {name: seconds * plan.num_windows / len(windows) for name, seconds in times.items()}
    resized_hw = plan.y.resized, plan.x.resized
    times["resizing"] = _median_s(lambda: resize_image(image, resized_hw), device, 3)
    times["labels"] = _median_s(lambda: engine.decode(dense, vocabulary), device, 3)
    total = sum(times.values())
    return ", ".join(f"{name} {100 * seconds / total:.0f} %" for name, seconds in times.items())


def _encoder_row(what: str, seconds: float, plain_s: float, matmul: float, agreement: float) -> Row:
    rate = gflop_per_image(SegmenterConfig(), IMAGE_HW) / seconds
    windows = plan_windows(IMAGE_HW, SegmenterConfig().windows).num_windows
    return {
        "": what,
        "images/s": f"{1 / seconds:.3f}",
        "windows/s": f"{windows / seconds:.2f}",
        "times faster": f"{plain_s / seconds:.2f}",
        "labels equal": f"{100 * agreement:.2f} %",
        "GFLOP/s": f"{rate:.0f}",
        "of matmul": f"{100 * rate / matmul:.0f} % of {matmul:.0f}",
        "time in": "",
        "peak MB": "",
    }


def _median_s(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The median time of `work`, after one run to warm up."""
    return statistics.median([_seconds(work, device) for _ in range(repeats + 1)][1:])


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
