"""How long a run of a million shards takes to go on: plan, segments and commits are really written, images are not.

python jobs/benchmark_resume.py
"""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import tyro

from proxyclip.dataset.commits import (
    Commit,
    DataFile,
    block_of,
    block_shards,
    commit_key,
    segment_key,
)
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.segments import segment_bytes
from proxyclip.dataset.statistics import ClassSum, ClassSums
from proxyclip.images.listing import ImageRef
from proxyclip.storage.store import Storage


@dataclass(frozen=True)
class Options:
    """Simulate a large run that stopped, and measure in new processes what it costs to go on with it."""

    shards: int = 1_000_000
    """Shards in the plan."""
    committed: int = 999_000
    """Shards that are done, the first ones: whole segments, and the rest as loose commits."""
    images_per_shard: int = 3
    """Images in each; the planned rows are what grows with it."""
    listing: bool = True
    """Measure also the extension of the plan by a listing without news."""
    folder: Path | None = None
    """Where to simulate; a temporary folder if not given. One that was filled before is used as it is."""


def simulate(storage: Storage, options: Options) -> None:
    """Write plan, segments and loose commits of a run that stopped."""
    Manifest(storage).extend_plan(list(listing(options)), options.images_per_shard)
    full = block_of(options.committed)
    for block in range(full):
        commits = [commit(shard, options.images_per_shard) for shard in block_shards(block)]
        classes = ClassSums({index: ClassSum(f"class {index}", 5000, 10**10, 10**19) for index in range(150)})
        storage.create(segment_key(block), segment_bytes(commits, classes))
    with ThreadPoolExecutor(16) as pool:
        list(
            pool.map(
                lambda shard: _commit_loose(storage, shard, options),
                range(block_shards(full).start, options.committed),
            )
        )


def listing(options: Options) -> Iterator[ImageRef]:
    """The images of the corpus, in order."""
    for number in range(options.shards * options.images_per_shard):
        yield ImageRef(f"photos/{number // 10_000:06d}/{number:010d}.jpg", 100_000, f"{number:032x}")


def commit(shard: int, images: int) -> Commit:
    """A commit as a run writes it."""
    sha256 = hashlib.sha256(str(shard).encode()).hexdigest()
    files = {
        kind: DataFile(f"{kind}/{shard:06d}-{sha256[:12]}.parquet", images, 30_000_000, sha256)
        for kind in ("masks", "stats")
    }
    return Commit(shard, files, images, images, 0)


def _commit_loose(storage: Storage, shard: int, options: Options) -> None:
    path = Path(storage.uri) / commit_key(shard)  # not by storage: its fsync would be all that is measured
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(commit(shard, options.images_per_shard).to_json())


def measure(step: str, folder: Path, options: Options) -> None:
    """One step in this process; prints the peak of its memory and a note as JSON."""
    manifest = Manifest(Storage(str(folder)))
    note = ""
    if step == "simulate":
        simulate(manifest.storage, options)
    elif step == "first shard":
        pending = manifest.pending()
        manifest.totals()
        shard, uris = next(manifest.read_range(pending[0].split(50)[0]))
        note = f"shard {shard} with {len(uris)} images, of {sum(part.num_shards for part in pending):,} pending"
    elif step == "first shard, through Ray Data":
        note = _first_row(manifest, folder)
    elif step == "totals":
        note = f"{manifest.totals().labelled:,} images"
    else:
        images = list(listing(options))
        before = _peak_mb()
        manifest.extend_plan(images, options.images_per_shard)
        note = f"{len(images):,} images, listed in {before:,.0f} MB"
    print(json.dumps([_peak_mb(), note]))


def _first_row(manifest: Manifest, folder: Path) -> str:
    import ray

    from proxyclip.dataset.plan import waves
    from proxyclip.pipeline.cluster import cluster, configure_data
    from proxyclip.pipeline.run import SHARDS_PER_TASK, SHARDS_PER_WAVE
    from proxyclip.pipeline.stages.read import ShardSource

    pending = manifest.pending()
    manifest.totals()
    with cluster("local", verbose=False):
        configure_data(verbose=False)
        ranges = [shards for part in next(waves(pending, SHARDS_PER_WAVE)) for shards in part.split(SHARDS_PER_TASK)]
        source = ShardSource(str(folder), str(folder), ranges)
        rows = ray.data.read_datasource(source, num_cpus=0.25, override_num_blocks=source.num_tasks)
        batch = next(iter(rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)))
    return f"{len(ranges):,} read tasks, the first row is shard {batch['shard'][0]}"


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Simulate, measure each step in a process of its own, print a table."""
    if len(sys.argv) > 1 and sys.argv[1] == "--step":
        shards, committed, images = map(int, sys.argv[4:])
        measure(sys.argv[2], Path(sys.argv[3]), Options(shards, committed, images))
        return
    options = tyro.cli(Options)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        steps = [] if (folder / "plan").exists() else ["simulate"]
        steps += ["totals", "first shard", "first shard, through Ray Data"] + ["extend the plan"] * options.listing
        print("| step | seconds | peak MB | |\n|---|---|---|---|")
        for step in steps:
            sizes = [str(size) for size in (options.shards, options.committed, options.images_per_shard)]
            command = [sys.executable, __file__, "--step", step, str(folder), *sizes]
            started = monotonic()
            output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            peak, note = json.loads(output.splitlines()[-1])
            print(f"| {step} | {monotonic() - started:.1f} | {peak:,.0f} | {note} |", flush=True)


if __name__ == "__main__":
    main()
