"""Learning a head from the collected statistics of corpora of growing size: time and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from performance.tables import Row
from proxyclip.dataset.commits import Commit, create_commit
from proxyclip.dataset.features.collected import read_collected, write_collected
from proxyclip.dataset.layout import collected_key, parse_collected_key
from proxyclip.models.adaptation.learn import learn
from proxyclip.models.adaptation.sample import PER_CORPUS, PER_SHARD
from proxyclip.models.adaptation.statistics import Statistics
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary

CLASSES, DIM, PATCHES, PER_SHARD_IMAGES = 21, 512, 256, 256


def measure_adapt(folder: Path, sizes: tuple[int, ...]) -> Iterator[Row]:
    """A row for each number of images, each measured in a process of its own."""
    data = _shard().to_bytes()
    for images in sizes:
        shards = -(-images // PER_SHARD_IMAGES)
        output = folder / str(images)
        _write(output, data, shards)
        done = subprocess.run(
            [sys.executable, __file__, str(output)], capture_output=True, text=True, check=True, env=_environment()
        )
        seconds, megabytes = map(float, done.stdout.split())
        yield {
            "images": f"{shards * PER_SHARD_IMAGES:,}".replace(",", " "),
            "shards": str(shards),
            "MB a shard": f"{len(data) / 1e6:.2f}",
            "s": f"{seconds:.1f}",
            "peak memory, MB": f"{megabytes:.0f}",
        }


def _shard() -> Statistics:
    """Those of 256 images of random patches, each with two classes."""
    rng, total = np.random.default_rng(0), Statistics.empty(CLASSES, DIM)
    means = rng.normal(size=(CLASSES, DIM))
    for image in range(PER_SHARD_IMAGES):
        classes = rng.choice(CLASSES, 2, replace=False)[rng.integers(2, size=PATCHES)]
        patches = means[classes] + rng.normal(size=(PATCHES, DIM))
        patches /= np.linalg.norm(patches, axis=1, keepdims=True)
        probabilities = torch.nn.functional.one_hot(torch.tensor(classes), CLASSES).float()
        weights = torch.full((PATCHES,), 1 / PATCHES)
        found = Statistics.of_image(f"{image}.jpg", torch.tensor(patches, dtype=torch.float32), weights, probabilities)
        total.add(found, PER_SHARD)
    return total


def _write(output: Path, data: bytes, shards: int) -> None:
    """An output with the same statistics for each shard; links, since a terabyte of images has gigabytes of them."""
    storage = Storage(str(output))
    write_collected(storage, 0, data)
    first = next(iter(storage.list("collected")))
    parsed = parse_collected_key(first.key)
    assert parsed is not None
    for shard in range(shards):
        create_commit(storage, Commit(shard, {}, PER_SHARD_IMAGES, PER_SHARD_IMAGES, 0))
        if shard:
            os.link(output / first.key, output / collected_key(shard, parsed[1]))


def _learn(output: str) -> None:
    import resource

    names = tuple(f"class {index}" for index in range(CLASSES))
    embeddings = np.random.default_rng(1).normal(size=(CLASSES, DIM)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    vocabulary = Vocabulary("synthetic", names, tuple((name,) for name in names), embeddings=embeddings)
    start, total = time.perf_counter(), Statistics.empty(CLASSES, DIM)
    for _, data in read_collected(Storage(output)):
        total.add(Statistics.from_bytes(data), PER_CORPUS)
    learn(total, vocabulary, 40.0, {}, {})
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(time.perf_counter() - start, kilobytes / 1024)


def _environment() -> dict[str, str]:
    here = Path(__file__).resolve().parents[1]
    paths = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


if __name__ == "__main__":
    _learn(sys.argv[1])
