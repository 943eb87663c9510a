"""How the pipeline keeps up with fast accelerators: stand-ins for the networks, on simulated nodes of a cluster."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from PIL import Image
from ray.cluster_utils import Cluster

from performance.accounts import Accounts
from performance.throughput import in_a_process
from proxyclip.config import LabelOptions, SegmenterConfig, recipe_fields
from proxyclip.dataset.manifest import Manifest
from proxyclip.images.listing import list_images
from proxyclip.pipeline.cluster import configure_data, on_loopback
from proxyclip.pipeline.prepare import write_vocabulary
from proxyclip.pipeline.stages.graph import label_graph
from proxyclip.pipeline.stages.label import Group, LabelShards, WorkerConfig
from proxyclip.pipeline.stages.read import ShardSource
from proxyclip.pipeline.stages.write import WriteShards
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary

IMAGE_HW = (375, 500)
_SHARD_SIZE = 256  # the job's default

_VOCABULARY = Vocabulary.from_names(list("abcde"))

# Seconds that a run takes where nothing but the accelerators holds it up, and images/s that no run here reaches.
_RUN_S, _CEILING = 80, 500


@dataclass(frozen=True)
class Measured:
    """One run: images per second while all actors worked, and CPU seconds per image by kind of process."""

    actors: int
    images_s: float
    cpu_s: Counter[str]


class StandIn(LabelShards):
    """The label stage with an accelerator that takes a known time for an image and no CPU.

    All else is real: reading, decoding and resizing, handing over, PNG, Parquet and commits.
    """

    _vocabulary = _VOCABULARY  # networks replaced need no text embeddings

    def __init__(self, config: WorkerConfig, seconds_per_image: float, everybody: Any, actors: int) -> None:
        self._seconds = seconds_per_image
        super().__init__(config)
        ray.get(everybody.arrive.remote())
        while ray.get(everybody.count.remote()) < actors:
            time.sleep(0.1)

    def _load(self) -> Any:
        return _Accelerator()

    def _labels(self, group: Group) -> list[dict[str, Any]]:
        until = time.monotonic() + self._seconds * len(group)
        rows = [{"uri": uri, **_CANNED} for uri, _ in group]
        time.sleep(max(until - time.monotonic(), 0))
        return rows


class _Accelerator:
    windows_at_once = 8


class _Everybody:
    def __init__(self) -> None:
        self._count = 0

    def arrive(self) -> None:
        self._count += 1

    def count(self) -> int:
        return self._count


def _canned() -> dict[str, Any]:
    """What is stored of labels with some regions in them."""
    y, x = np.mgrid[: IMAGE_HW[0], : IMAGE_HW[1]]
    mask = (((x - 250) ** 2 + (y - 190) ** 2 < 120**2) + 2 * (x + y > 600) + 4 * (y > 300 + 20 * np.sin(x / 30))) % 5
    classes, pixels = np.unique(mask, return_counts=True)
    confidence = (127 + 100 * np.sin(x[::4, ::4] / 40)).astype(np.uint8)
    return {
        "height": IMAGE_HW[0],
        "width": IMAGE_HW[1],
        "mask": mask.astype(np.uint8),
        "confidence": confidence,
        "classes": classes.tolist(),
        "pixels": pixels.tolist(),
        "class_confidence": [0.5] * len(classes),
        "mean_confidence": 0.5,
        "ignored": 0,
    }


_CANNED = _canned()


def benchmark_scaling(images: str, seconds_per_image: float, actors: tuple[int, ...]) -> list[dict[str, str]]:
    """Rows of a table: throughput with some numbers of actors, each on a node of its own.

    images: folder of JPEGs of IMAGE_HW, labelled again and again.
    """
    runs: list[Measured] = [in_a_process(_measure, images, seconds_per_image, count) for count in actors]
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


def _measure(images: str, seconds_per_image: float, actors: int) -> Measured:
    # Ray's own switch for machines that must not listen to the network, for what it starts.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        shards = round(_RUN_S * min(actors / seconds_per_image, _CEILING) / _SHARD_SIZE)
        # Workers of all nodes have started after a while; in the end not all of them have work.
        begin, end = shards // 2, shards - 3 * actors
        source, stage = _prepare(Path(images), Path(folder), shards)
        head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 300 * 2**20}
        with on_loopback():
            cluster = Cluster(initialize_head=True, head_node_args=head)
            for _ in range(actors):
                cluster.add_node(num_cpus=1, num_gpus=1, object_store_memory=300 * 2**20)
            ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        configure_data(verbose=False)
        everybody = ray.remote(_Everybody).options(num_cpus=0).remote()
        writer = WriteShards(stage.output, _VOCABULARY.class_names)
        arguments = (stage, seconds_per_image, everybody, actors)
        graph = label_graph(source, StandIn, arguments, writer, actors, {"num_gpus": 1})
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


def _prepare(images: Path, folder: Path, shards: int) -> tuple[ShardSource, WorkerConfig]:
    """A corpus of links to the images, and its plan."""
    files = sorted(images.iterdir())
    with Image.open(files[0]) as first:
        if first.size != IMAGE_HW[::-1]:
            raise ValueError(f"{files[0]}: {first.size} pixels found, {IMAGE_HW[::-1]} wanted.")
    corpus = folder / "images"
    corpus.mkdir()
    for index in range(shards * _SHARD_SIZE):
        (corpus / f"{index:06d}.jpg").symlink_to(files[index % len(files)])
    output = Storage(str(folder / "labels"))
    options = LabelOptions(str(corpus), output.uri, "none")
    manifest = Manifest(output)
    config = SegmenterConfig()
    manifest.begin(options.input, {"segmenter": recipe_fields(config)}, "stand-in", packages={})
    write_vocabulary(output, _VOCABULARY)
    manifest.extend_plan(list_images(options.input), _SHARD_SIZE)
    ranges = [part for whole in manifest.pending() for part in whole.split(max(shards // 16, 1))]
    stage = WorkerConfig(
        segmenter=config,
        output=output.uri,
        device="stand-in",
        threads=2,
        batch_windows=8,
        confidence_stride=options.confidence_stride,
        image_timeout_s=options.image_timeout_s,
    )
    return ShardSource(options.input, output.uri, ranges), stage
