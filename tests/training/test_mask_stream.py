"""A stream of samples: each once over all ranks and workers, in an order that seed and epoch decide."""

from __future__ import annotations

import threading
import uuid
from collections import Counter

import pytest
import torch.distributed
from outputs import images, label_pending
from torch.utils.data import DataLoader
from trainable import LIVE, make_output

from proxyclip import MaskDataset, MaskStream
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.reading.labels import Labels
from proxyclip.storage.store import Storage
from proxyclip.training.samples import SampleError


def uris(stream, workers=0, **options):
    loader = DataLoader(stream, batch_size=None, num_workers=workers, **options)
    return [sample["uri"] for sample in loader]


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (3, 2), (2, 1)])
def test_ranks_and_workers_share_the_samples_without_overlap(output, world, workers):
    streams = [MaskStream(output, rank=rank, world_size=world, seed=1) for rank in range(world)]
    found = [uris(stream, workers) for stream in streams]
    assert Counter(uri for some in found for uri in some) == Counter(LIVE)
    assert [len(stream) for stream in streams] == [len(some) for some in found]


def test_spawned_workers_read_the_same_as_forked_ones(output):
    stream = MaskStream(output, rank=0, world_size=2)
    assert uris(stream, 1, multiprocessing_context="spawn") == uris(stream, 1, multiprocessing_context="fork")


def test_seed_and_epoch_decide_the_order(output):
    def order(epoch=0, **options):
        stream = MaskStream(output, **options)
        stream.set_epoch(epoch)
        return uris(stream)

    assert order() == order()
    assert sorted(order(1)) == sorted(order()) == LIVE
    assert len({tuple(order()), tuple(order(1)), tuple(order(seed=1)), tuple(order(buffer=1))}) == 4
    assert order(shuffle=False) == order(5, shuffle=False) == MaskDataset(output).uris.to_pylist()


def test_workers_that_live_on_see_the_next_epoch(output):
    stream = MaskStream(output)
    loader = DataLoader(stream, batch_size=None, num_workers=2, persistent_workers=True)
    epochs = []
    for epoch in range(2):
        stream.set_epoch(epoch)
        epochs.append([sample["uri"] for sample in loader])
        assert epochs[-1] == uris(stream, 2)
    assert epochs[0] != epochs[1]


def test_images_without_a_sample_stop_the_stream_or_are_skipped_and_counted(output):
    folder = Storage(Labels.open(output).record.input)
    gone = LIVE[::4]
    for uri in gone:
        folder.delete(uri)
    with pytest.raises(SampleError, match="no such file"):
        uris(MaskStream(output))
    for workers in (0, 2):
        stream = MaskStream(output, on_error="skip")
        assert sorted(uris(stream, workers)) == sorted(set(LIVE) - set(gone))
        assert stream.skipped == len(gone)
    with pytest.raises(ValueError, match='give "raise" or "skip"'):
        MaskStream(output, on_error="ignore")


def test_what_is_committed_later_is_not_seen(output):
    stream, dataset = MaskStream(output), MaskDataset(output)
    manifest = Manifest(Storage(output))
    manifest.extend_plan(images(3, 50), 3)  # and all others are gone
    label_pending(manifest)
    assert sorted(uris(stream)) == LIVE
    assert sorted(sample["uri"] for sample in dataset) == LIVE
    assert MaskDataset.__len__(dataset) == len(LIVE)
    assert Labels.open(output).totals.labelled == 3


def test_output_and_images_may_lie_in_an_object_store(s3):
    output = make_output(s3.uri(f"bucket/{uuid.uuid4().hex}"))
    assert sorted(uris(MaskStream(output, rank=0, world_size=1))) == LIVE
    assert sorted(sample["uri"] for sample in MaskDataset(output).__getitems__(range(len(LIVE)))) == LIVE


def test_a_stream_that_was_made_before_its_process_group_says_so(output, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    stream = MaskStream(output)
    assert len(stream) == len(LIVE) - len(LIVE) // 2
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        with pytest.raises(RuntimeError, match="rank 1 of 2, but the process is rank 0 of 1; make the stream after"):
            next(iter(stream))
        assert len(MaskStream(output)) == len(LIVE)
        assert next(iter(MaskStream(output, rank=1, world_size=2)))
    finally:
        torch.distributed.destroy_process_group()


def test_a_reader_that_stops_in_the_middle_leaves_no_threads(output):
    before = threading.active_count()
    for _ in range(3):
        iterator = iter(MaskStream(output))
        next(iterator)
        iterator.close()
    assert threading.active_count() == before
