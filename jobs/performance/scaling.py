"""How the pipeline keeps up with fast accelerators: actors wait instead of computing, each on a simulated node."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from PIL import Image
from ray.cluster_utils import Cluster

from performance.pipeline import Accounts, in_a_process
from performance.tables import Row
from proxyclip.config import SegmenterConfig, WindowConfig
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.run_record import write_vocabulary
from proxyclip.images.listing import list_images
from proxyclip.images.sizes import ResizedImage
from proxyclip.models.windows import plan_windows
from proxyclip.pipeline.cluster.join import configure_data, on_loopback
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.stages.actor import ActorConfig, Actors
from proxyclip.pipeline.stages.decode import ImageLabels
from proxyclip.pipeline.stages.feed import Found
from proxyclip.pipeline.stages.graph import label_graph
from proxyclip.pipeline.stages.read import ShardSource
from proxyclip.pipeline.stages.write import WriteShards
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary

IMAGE_HW = (375, 500)
_SHARD_SIZE = 256  # the job's default

# The stand-in needs no text embeddings, but an actor reads some.
_VOCABULARY = Vocabulary.from_names(list("abcde")).with_embeddings(np.eye(5, 8, dtype=np.float32))

# Images/s that limit the corpus of a run: more than the CPUs of a small machine can do.
_CEILING = 500


@dataclass(frozen=True)
class Measured:
    """One run: images/s while all actors worked, and CPU seconds an image by kind of process."""

    actors: int
    images_s: float
    cpu_s: Counter[str]


class WaitingLabeller:
    """Stands in for the networks: an accelerator that takes a known time for an image, and no CPU time.

    Everything else is real: reading, decoding and resizing JPEGs, PNG, Parquet and commits.
    """

    windows_at_once = 8

    def __init__(self, windows: WindowConfig, seconds_per_image: float) -> None:
        self._windows = windows
        self._seconds = seconds_per_image

    def num_windows(self, image: ResizedImage) -> int:
        return plan_windows(image.original_hw, self._windows).num_windows

    def label(self, images: Sequence[ResizedImage], vocabulary: Vocabulary | None) -> list[Found]:
        time.sleep(self._seconds * len(images))
        return [Found(_LABELS)] * len(images)


def _wait_for_all(seconds_per_image: float, arrivals: Any, actors: int, config: ActorConfig) -> WaitingLabeller:
    """Make an actor's stand-in, once all actors have started."""
    ray.get(arrivals.add.remote())
    while ray.get(arrivals.count.remote()) < actors:
        time.sleep(0.1)
    assert isinstance(config.segmenter, SegmenterConfig)
    return WaitingLabeller(config.segmenter.windows, seconds_per_image)


class _Arrivals:
    def __init__(self) -> None:
        self._count = 0

    def add(self) -> None:
        self._count += 1

    def count(self) -> int:
        return self._count


def _labels() -> ImageLabels:
    """Labels with a few regions, as a network would give them."""
    y, x = np.mgrid[: IMAGE_HW[0], : IMAGE_HW[1]]
    mask = (((x - 250) ** 2 + (y - 190) ** 2 < 120**2) + 2 * (x + y > 600) + 4 * (y > 300 + 20 * np.sin(x / 30))) % 5
    pixels = np.bincount(mask.ravel(), minlength=_VOCABULARY.num_classes)
    confidence = (127 + 100 * np.sin(x[::4, ::4] / 40)).astype(np.uint8)
    return ImageLabels(mask.astype(np.uint8), confidence, pixels, confidence_sums=pixels / 2, ignored=0)


_LABELS = _labels()


def measure_scaling(images: str, seconds_per_image: float, actors: tuple[int, ...], run_s: float) -> list[Row]:
    """Rows of a table: throughput with each number of actors.

    images: folder of JPEGs of IMAGE_HW, labelled again and again. run_s: length of a run that only the actors limit.
    """
    _check_size(Path(images))
    runs: list[Measured] = [in_a_process(_measure, images, seconds_per_image, count, run_s) for count in actors]
    rows = []
    for run in runs:
        ideal = run.actors * runs[0].images_s / runs[0].actors
        rows.append(
            {
                "ms an image": f"{1e3 * seconds_per_image:g}",
                "actors": str(run.actors),
                "images/s": f"{run.images_s:.0f}",
                f"of {runs[0].actors} actor": f"{run.images_s / ideal * run.actors / runs[0].actors:.2f}x",
                "accelerators busy": f"{100 * run.images_s * seconds_per_image / run.actors:.0f} %",
                "CPU ms an image": f"{1e3 * run.cpu_s.total():.2f}",
                "of which": ", ".join(f"{kind} {1e3 * seconds:.2f}" for kind, seconds in run.cpu_s.most_common()),
            }
        )
    return rows


def _measure(images: str, seconds_per_image: float, actors: int, run_s: float) -> Measured:
    # Ray's own switch that keeps the processes it starts off the network.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # workers import what this process can
    with tempfile.TemporaryDirectory() as folder:
        shards = round(run_s * min(actors / seconds_per_image, _CEILING) / _SHARD_SIZE)
        # In the first half workers still start; in the end not all of them have work.
        begin, end = shards // 2, shards - 3 * actors
        if end - begin < 2:
            raise ValueError(f"--run-s {run_s:g} is too short for --actors {actors}; give a longer one.")
        source, stage = _prepare(Path(images), Path(folder), shards)
        head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 300 * 2**20}
        with on_loopback():
            cluster = Cluster(initialize_head=True, head_node_args=head)
            for _ in range(actors):
                cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=300 * 2**20)
            ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        configure_data(verbose=False)
        arrivals = ray.remote(_Arrivals).options(num_cpus=0).remote()
        writer = WriteShards(stage.output, _VOCABULARY.class_names)
        labeller = partial(_wait_for_all, seconds_per_image, arrivals, actors)
        graph = label_graph(source, (stage, None, None, labeller), writer, Actors(actors, actors, 1, {"num_gpus": 1}))
        accounts, times = Accounts(psutil.Process()), [(0.0, Counter[str]())]
        batches: Iterator[Any] = iter(graph.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
        for batch in batches:
            for receipt in batch.to_pylist():
                if receipt["error"]:
                    raise RuntimeError(receipt["error"])
                edge = len(times) in (begin, end)
                times.append((time.perf_counter(), accounts.cpu_seconds() if edge else times[-1][1]))
        seconds = times[end][1] - times[begin][1]
        shards_s = np.polyfit([when for when, _ in times[begin : end + 1]], range(end + 1 - begin), 1)[0]
        ray.shutdown()
        cluster.shutdown()
    images_between = (end - begin) * _SHARD_SIZE
    return Measured(
        actors,
        _SHARD_SIZE * shards_s,
        Counter({kind: value / images_between for kind, value in seconds.items()}),
    )


def _check_size(images: Path) -> None:
    """The stand-in gives every image the same mask, so all images must have its size."""
    first = min(images.iterdir())
    with Image.open(first) as image:
        if image.size != IMAGE_HW[::-1]:
            width, height = image.size
            raise ValueError(f"{first} has {width} x {height} pixels; give images of {IMAGE_HW[1]} x {IMAGE_HW[0]}.")


def _prepare(images: Path, folder: Path, shards: int) -> tuple[ShardSource, ActorConfig]:
    """Make a corpus of links to the images, and its plan."""
    files = sorted(images.iterdir())
    corpus = folder / "images"
    corpus.mkdir()
    for index in range(shards * _SHARD_SIZE):
        (corpus / f"{index:06d}.jpg").symlink_to(files[index % len(files)])
    output = Storage(str(folder / "labels"))
    options = LabelOptions(str(corpus), output.uri, "none")
    manifest = Manifest(output)
    write_vocabulary(output, _VOCABULARY)
    manifest.extend_plan(list_images(options.input), _SHARD_SIZE)
    ranges = [part for whole in manifest.pending() for part in whole.split(max(shards // 16, 1))]
    stage = ActorConfig(
        segmenter=SegmenterConfig(),
        weights={},
        output=output.uri,
        device="stand-in",
        threads=2,
        batch_windows=8,
        confidence_stride=options.confidence_stride,
        image_timeout_s=options.image_timeout_s,
    )
    return ShardSource(options.input, output.uri, ranges), stage
