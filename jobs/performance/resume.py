"""How long a run of a million shards takes to resume. Its plan, segments and commits are real; its images are not."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from performance.tables import Row
from proxyclip.dataset.commits import Commit, DataFile, block_of, block_shards
from proxyclip.dataset.layout import commit_key, data_key, segment_key
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.segments import segment_bytes
from proxyclip.dataset.statistics import ClassSum, ClassSums
from proxyclip.images.listing import ImageRef
from proxyclip.storage.store import Storage


@dataclass(frozen=True)
class LargeRun:
    """A run that stopped. The first shards are committed: whole segments, and the rest as loose commits."""

    shards: int
    committed: int
    images_per_shard: int


def measure_resume(run: LargeRun, *, with_listing: bool, folder: Path | None) -> list[Row]:
    """Rows of a table, one a step, each measured in a process of its own.

    with_listing: measure also how a listing without new images extends the plan. folder: where the run is written,
    None for a temporary folder. A folder that holds a run is used as it is.
    """
    rows = []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with tempfile.TemporaryDirectory() as temporary:
        folder = folder or Path(temporary)
        steps = [] if (folder / "plan").exists() else ["simulate"]
        steps += ["totals", "first shard", "first shard, through Ray Data"] + ["extend the plan"] * with_listing
        for step in steps:
            sizes = [str(size) for size in (run.shards, run.committed, run.images_per_shard)]
            command = [sys.executable, "-m", "performance.resume", step, str(folder), *sizes]
            started = monotonic()
            output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
            seconds = monotonic() - started
            peak, note = json.loads(output.splitlines()[-1])
            rows.append({"step": step, "seconds": f"{seconds:.1f}", "peak MB": f"{peak:,.0f}", "": note})
    return rows


def simulate(storage: Storage, run: LargeRun) -> None:
    """Write plan, segments and loose commits of a run that stopped."""
    Manifest(storage).extend_plan(list(listing(run)), run.images_per_shard)
    full = block_of(run.committed)
    for block in range(full):
        commits = [commit(shard, run.images_per_shard) for shard in block_shards(block)]
        classes = ClassSums({index: ClassSum(f"class {index}", 5000, 10**10, 10**19) for index in range(150)})
        storage.create(segment_key(block), segment_bytes(commits, classes))
    with ThreadPoolExecutor(16) as pool:
        loose = range(block_shards(full).start, run.committed)
        list(pool.map(lambda shard: _commit_loose(storage, shard, run), loose))


def listing(run: LargeRun) -> Iterator[ImageRef]:
    """The images of the corpus, in order."""
    for number in range(run.shards * run.images_per_shard):
        yield ImageRef(f"photos/{number // 10_000:06d}/{number:010d}.jpg", 100_000, f"{number:032x}")


def commit(shard: int, images: int) -> Commit:
    """A commit as a run writes it."""
    sha256 = hashlib.sha256(str(shard).encode()).hexdigest()
    files = {kind: DataFile(data_key(kind, shard, sha256), images, 30_000_000, sha256) for kind in ("masks", "stats")}
    return Commit(shard, files, images, images, 0)


def _commit_loose(storage: Storage, shard: int, run: LargeRun) -> None:
    path = Path(storage.uri) / commit_key(shard)  # Storage would sync each file, and that would be all that is measured
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(commit(shard, run.images_per_shard).to_json())


def measure(step: str, folder: Path, run: LargeRun) -> None:
    """Do one step in this process. Print the peak of its memory and a note as JSON."""
    manifest = Manifest(Storage(str(folder)))
    note = ""
    if step == "simulate":
        simulate(manifest.storage, run)
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
        images = list(listing(run))
        before = _peak_mb()
        manifest.extend_plan(images, run.images_per_shard)
        note = f"{len(images):,} images, listed in {before:,.0f} MB"
    print(json.dumps([_peak_mb(), note]))


def _first_row(manifest: Manifest, folder: Path) -> str:
    import ray

    from proxyclip.dataset.plan import waves
    from proxyclip.pipeline.cluster.join import cluster, configure_data
    from proxyclip.pipeline.runner import SHARDS_PER_TASK, SHARDS_PER_WAVE
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


if __name__ == "__main__":
    measure(sys.argv[1], Path(sys.argv[2]), LargeRun(*map(int, sys.argv[3:])))
