"""Samples by index: shards are kept up to a limit, and an order that stays within shards reads each once."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from trainable import LIVE

from proxyclip import MaskDataset, ShardSampler
from proxyclip.dataset.reading.labels import Labels


@pytest.fixture
def reads(monkeypatch):
    """The shards that are read, as they are."""
    shards, read = [], Labels.read
    monkeypatch.setattr(Labels, "read", lambda labels, shard: (shards.append(shard), read(labels, shard))[1])
    return shards


def test_the_default_collate_makes_batches(output):
    loader = DataLoader(MaskDataset(output, transform=v2.Resize((8, 8))), batch_size=5)
    batch = next(iter(loader))
    assert type(batch["image"]) is torch.Tensor
    assert batch["image"].shape == (5, 3, 8, 8)
    assert batch["mask"].shape == batch["confidence"].shape == (5, 8, 8)
    assert batch["mask"].dtype == torch.int64
    assert len(batch["uri"]) == 5


def test_as_many_shards_are_kept_as_the_cache_holds(output, reads):
    for cache_mb, again in ((0, True), (10, False)):
        dataset = MaskDataset(output, cache_mb=cache_mb)
        list(dataset)
        reads.clear()
        assert [sample["uri"] for sample in dataset] == dataset.uris.to_pylist()
        shards = {table["shard"][0].as_py() for table in dataset.labels.index(["uri"]) if table.num_rows}
        assert sorted(reads) == (sorted(shards) if again else [])


def test_a_batch_reads_each_of_its_shards_once_and_keeps_its_order(output, reads):
    dataset = MaskDataset(output, cache_mb=0)
    reads.clear()
    indices = [10, 0, 10, 5, 1]
    uris = dataset.uris.to_pylist()
    assert [sample["uri"] for sample in dataset.__getitems__(indices)] == [uris[index] for index in indices]
    assert len(reads) == len(set(reads)) == 3


def test_the_sampler_deals_each_index_once_and_stays_within_few_shards(output, reads):
    dataset = MaskDataset(output, cache_mb=0)
    samplers = [ShardSampler(dataset, buffer=1, rank=rank, world_size=2) for rank in range(2)]
    dealt = [list(sampler) for sampler in samplers]
    assert sorted(dealt[0] + dealt[1]) == list(range(len(dataset)))
    assert [len(sampler) for sampler in samplers] == list(map(len, dealt))
    reads.clear()
    loader = DataLoader(dataset, sampler=samplers[0], batch_size=None)
    assert len(list(loader)) == len(dealt[0])
    assert len(reads) == len(set(reads))
    samplers[0].set_epoch(1)
    assert list(samplers[0]) != dealt[0]


def test_it_pickles_without_its_cache(output):
    dataset = MaskDataset(output)
    small = len(pickle.dumps(dataset))
    list(dataset)
    data = pickle.dumps(dataset)
    assert len(data) == small
    assert sorted(sample["uri"] for sample in pickle.loads(data)) == LIVE
