"""A large run that goes on: what is read and in what order, not how long it takes (jobs/benchmark_resume.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
from reference import load_module

from proxyclip.dataset import commits, store
from proxyclip.dataset.manifest import Manifest, Totals
from proxyclip.dataset.plan import ShardRange
from proxyclip.dataset.store import Storage

SHARDS, DONE = 20_000, 19_700


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commits, "SHARDS_PER_SEGMENT", 1000)
        yield load_module(Path(__file__).resolve().parents[1] / "jobs" / "benchmark_resume.py")


@pytest.fixture(scope="module")
def output(benchmark, tmp_path_factory):
    storage = Storage(str(tmp_path_factory.mktemp("large")))
    benchmark.simulate(storage, benchmark.Options(SHARDS, DONE, images_per_shard=2))
    return storage


def test_going_on_reads_names_feet_and_the_tail(output, benchmark, monkeypatch):
    read = []
    for method in ("read", "open"):
        real = getattr(store.Storage, method)
        monkeypatch.setattr(
            store.Storage, method, lambda self, key, m=method, real=real: read.append((m, key)) or real(self, key)
        )
    manifest = Manifest(output)
    pending = manifest.pending()
    assert pending == [ShardRange(19, tuple(range(DONE, SHARDS)))]
    assert {key.split("/")[0] for _, key in read} == {"plan"}
    assert {method for method, _ in read} == {"open"}
    read.clear()
    assert manifest.totals() == Totals(2 * SHARDS, 2 * DONE, 0, SHARDS, DONE)
    assert sorted(key for method, key in read if method == "open") == [commits.segment_key(n) for n in range(19)]
    assert sorted(key for method, key in read if method == "read") == [
        commits.commit_key(shard) for shard in range(19_000, DONE)
    ]
    read.clear()
    shard, uris = next(manifest.read_range(pending[0].split(50)[0]))
    assert (shard, len(uris)) == (DONE, 2)
    assert read == [("read", "plan/00019.parquet")]


def test_a_listing_without_news_adds_nothing(output, benchmark):
    images = list(benchmark.listing(benchmark.Options(SHARDS, DONE, images_per_shard=2)))
    summary = Manifest(output).extend_plan(images, 2)
    assert (summary.images, summary.shards, summary.new_shards, summary.removed) == (2 * SHARDS, SHARDS, 0, 0)
