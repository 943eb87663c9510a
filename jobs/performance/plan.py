"""How long a plan of many images takes, and how much memory: from a listing and from tables of URIs."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter
from pathlib import Path
from time import monotonic

import pyarrow as pa
import pyarrow.parquet as pq

from performance.tables import Row
from proxyclip.dataset.manifest import Manifest
from proxyclip.images import listing
from proxyclip.images.inputs.sorting import SCHEMA, Listing
from proxyclip.images.ref import ImageRef, is_image
from proxyclip.storage.store import Entry, Storage

# What each step makes: a table, or a plan from a listing or a table.
BEFORE, STREAMED = "a listing, held and sorted in memory", "a listing, streamed"
SORTED, SHUFFLED, TEXT = "a Parquet table in order", "a Parquet table in any order", "a text file in any order"
_TABLES = {SORTED: "sorted.parquet", SHUFFLED: "shuffled.parquet", TEXT: "shuffled.txt"}
_BATCH = 2**16
_SHARD_SIZE = 256


def measure_plan(num_images: int, *, before: bool, folder: Path | None) -> list[Row]:
    """Rows of a table, one a way to the same plan, each measured in a process of its own.

    before: measure also how listings were planned before they were streamed, which needs 800 bytes an image. folder:
    where tables and plans are written; None for a temporary folder. Temporary files go to TMPDIR.
    """
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        write_tables(Path(place), num_images)
        for step in ["names alone", *[BEFORE] * before, STREAMED, *_TABLES, "no change"]:
            command = [sys.executable, "-m", "performance.plan", step, place, str(num_images)]
            started = monotonic()
            output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
            seconds = monotonic() - started
            cpu_s, peak_mb, list_s, planned = json.loads(output.splitlines()[-1])
            rows.append(
                {
                    "plan from": step,
                    "seconds": f"{seconds:.1f}",
                    "of these, listing": f"{list_s:.1f}",
                    "CPU, µs an image": f"{cpu_s / num_images * 1e6:.2f}",
                    "peak MB": f"{peak_mb:,.0f}",
                    "shards": f"{planned:,}",
                }
            )
    return rows


def entries(num_images: int) -> Iterator[Entry]:
    """What a store lists: 10 000 images a folder, in order."""
    for number in range(num_images):
        yield Entry(f"photos/{number // 10_000:06d}/{number:010d}.jpg", 100_000, f"{number:032x}", 0)


def write_tables(folder: Path, num_images: int) -> None:
    """The tables of the same images. Shuffled are blocks of 1000 rows, and the rows in them, as in a large join."""
    _write_parquet(folder / _TABLES[SORTED], entries(num_images))
    blocks = list(range(0, num_images, 1000))
    random.Random(1).shuffle(blocks)
    _write_parquet(folder / _TABLES[SHUFFLED], _shuffled(blocks, num_images))
    with (folder / _TABLES[TEXT]).open("w") as file:
        file.writelines(f"{entry.key}\n" for entry in _shuffled(blocks, num_images))


def _shuffled(blocks: list[int], num_images: int) -> Iterator[Entry]:
    rng = random.Random(2)
    for some in (blocks[start : start + 16] for start in range(0, len(blocks), 16)):
        numbers = [number for block in some for number in range(block, min(block + 1000, num_images))]
        rng.shuffle(numbers)
        for number in numbers:
            yield Entry(f"photos/{number // 10_000:06d}/{number:010d}.jpg", 100_000, f"{number:032x}", 0)


def _write_parquet(path: Path, images: Iterator[Entry]) -> None:
    with pq.ParquetWriter(path, SCHEMA) as writer:
        while some := list(islice(images, _BATCH)):
            columns = [pa.array(column) for column in zip(*some, strict=True)]
            writer.write_batch(pa.RecordBatch.from_arrays(columns[:3], schema=SCHEMA))


class _Listed(Storage):
    """A storage that lists images, as a store with that many would."""

    num_images = 0

    def walk(self, folder: str = "") -> Iterator[Entry]:
        return entries(self.num_images)


def measure(step: str, folder: Path, num_images: int) -> None:
    """Do one step in this process. Print its CPU time, the peak of its memory, the time of listing, and the shards."""
    _Listed.num_images = num_images
    started = monotonic()
    plan = Manifest(Storage(str(folder / step.replace(" ", "-"))))
    if step == "names alone":
        for _ in entries(num_images):
            pass
        print(json.dumps([_cpu_s(), _peak_mb(), monotonic() - started, 0]))
        return
    if step == "no change":
        plan = Manifest(Storage(str(folder / STREAMED.replace(" ", "-"))))
    found: Listing | list[ImageRef]
    if step == BEFORE:
        kept = [entry for entry in sorted(entries(num_images)) if is_image(entry.key)]
        found = sorted((ImageRef(*entry[:3]) for entry in kept), key=attrgetter("uri"))
    elif step in _TABLES:
        found = listing.list_images(str(folder / _TABLES[step]))
    else:
        listing.located = lambda address: (_Listed(address.place), None)
        found = listing.list_images(str(folder))
    list_s = monotonic() - started
    summary = plan.extend_plan(found, _SHARD_SIZE)
    assert summary.images == num_images
    print(json.dumps([_cpu_s(), _peak_mb(), list_s, summary.shards]))


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    measure(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
