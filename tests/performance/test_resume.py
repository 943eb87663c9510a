"""Resuming a large run: what is read, and in what order. How long it takes, `python jobs/performance resume` tells."""

from __future__ import annotations

import os

import pytest
from outputs import files, images, run
from performance.resume import LargeRun, listing, simulate

from proxyclip.dataset import commits, plan
from proxyclip.dataset.layout import commit_key, segment_key
from proxyclip.dataset.manifest import Manifest, Totals
from proxyclip.dataset.plan import ShardRange
from proxyclip.images.listing import ImageRef
from proxyclip.storage import store
from proxyclip.storage.store import Storage

SHARDS, DONE = 20_000, 19_700
LARGE = LargeRun(SHARDS, DONE, images_per_shard=2)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commits, "SHARDS_PER_SEGMENT", 1000)
        storage = Storage(str(tmp_path_factory.mktemp("large")))
        simulate(storage, LARGE)
        yield storage


def test_resuming_reads_names_footers_and_the_loose_commits(output, monkeypatch):
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
    assert sorted(key for method, key in read if method == "open") == [segment_key(n) for n in range(19)]
    assert sorted(key for method, key in read if method == "read") == [
        commit_key(shard) for shard in range(19_000, DONE)
    ]
    read.clear()
    shard, uris = next(manifest.read_range(pending[0].split(50)[0]))
    assert (shard, len(uris)) == (DONE, 2)
    assert read == [("read", "plan/00019.parquet")]


def test_a_listing_without_new_images_adds_nothing(output):
    summary = Manifest(output).extend_plan(list(listing(LARGE)), 2)
    assert (summary.images, summary.shards, summary.new_shards, summary.removed) == (2 * SHARDS, SHARDS, 0, 0)


def test_a_run_that_dies_at_any_write_ends_in_the_bytes_of_an_undisturbed_one(tmp_path, monkeypatch):
    monkeypatch.setattr(commits, "SHARDS_PER_SEGMENT", 2)
    monkeypatch.setattr(plan, "SHARDS_PER_PART", 3)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # the power stays on in this test
    first = images(14)
    then = [ImageRef("001.jpg", 11, "2"), *[ref for ref in images(16) if ref.uri not in ("001.jpg", "005.jpg")]]
    undisturbed = Storage(str(tmp_path / "undisturbed"))
    writes = 0

    def counting(method, dies_at):
        def call(self, *args):
            nonlocal writes
            writes += 1
            if writes > dies_at:
                raise KeyboardInterrupt
            return method(self, *args)

        return call

    def run_until(storage, corpus, dies_at):
        nonlocal writes
        writes = 0
        with monkeypatch.context() as patch:
            for name in ("write", "create", "delete"):
                patch.setattr(Storage, name, counting(getattr(Storage, name), dies_at))
            run(storage, corpus)

    counts = []
    for corpus in (first, then):
        run_until(undisturbed, corpus, 10**9)
        counts.append(writes)
    assert min(counts) > 5
    for dies_at in range(max(counts)):
        storage = Storage(str(tmp_path / str(dies_at)))
        for corpus, count in zip((first, then), counts, strict=True):
            if dies_at < count:
                with pytest.raises(KeyboardInterrupt):
                    run_until(storage, corpus, dies_at)
            run(storage, corpus)
        assert files(storage) == files(undisturbed), dies_at
