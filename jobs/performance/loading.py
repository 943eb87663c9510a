"""Samples a second that the loaders of proxyclip.training give to a training, by the number of workers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from performance.tables import Row
from proxyclip import MaskDataset, MaskStream, ShardSampler

BATCH_SIZE = 16


def measure_loading(output: str, images: str | None, workers: Sequence[int], samples: int, rounds: int) -> list[Row]:
    """Batches of 16 crops, at the shortest side of any image of the corpus, by each loader. Epochs are repeated."""
    dataset = MaskDataset(output, images)
    sizes = pa.concat_tables(dataset.labels.index(["height", "width"]))
    crop = v2.RandomCrop(min(pc.min(sizes[side]).as_py() for side in ("height", "width")))
    by_index = MaskDataset(output, images, transform=crop)
    sampler = ShardSampler(by_index)
    stream = MaskStream(output, images, transform=crop)
    loaders: dict[str, tuple[Any, Any]] = {
        "MaskStream": (stream, None),
        "MaskDataset with ShardSampler": (by_index, sampler),
    }
    rows = []
    for name, (source, order) in loaders.items():
        for count in workers:
            loader = DataLoader(
                source, BATCH_SIZE, sampler=order, num_workers=count, persistent_workers=count > 0, drop_last=False
            )
            speeds = []
            for number in range(rounds + 1):
                taken, seconds = _take(loader, order or source, samples)
                if number:  # the first round starts the workers
                    speeds.append(taken / seconds)
            rows.append(
                {
                    "loader": name,
                    "workers": str(count),
                    "samples/s": f"{statistics.median(speeds):.0f}",
                    "rounds": " / ".join(f"{speed:.0f}" for speed in speeds),
                }
            )
    return rows


def _take(loader: Any, order: Any, samples: int) -> tuple[int, float]:
    """Whole epochs until there are so many samples. Returns their number and the seconds."""
    taken, epoch, start = 0, 0, time.perf_counter()
    while taken < samples:
        order.set_epoch(epoch)
        taken += sum(len(batch["uri"]) for batch in loader)
        epoch += 1
    return taken, time.perf_counter() - start
