"""Who reads which samples: each once, in shares of equal size."""

from __future__ import annotations

import numpy as np
import pytest

from proxyclip.training.order import Order, Place, mixed


def rows(pieces):
    return [(piece.shard, row) for piece in pieces for row in range(piece.start, piece.stop)]


@pytest.mark.parametrize("seed", range(12))
def test_every_row_is_read_once_by_someone_and_shares_differ_by_one(seed):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 9, rng.integers(1, 30))
    world, workers, shuffle = int(rng.integers(1, 9)), int(rng.integers(1, 6)), bool(seed % 2)
    orders = [Order(counts, shuffle, 9, 0, False, Place(rank, world)) for rank in range(world)]
    ranks = [[rows(order.pieces(3, workers, worker)) for worker in range(workers)] for order in orders]
    every = [row for rank in ranks for worker in rank for row in worker]
    assert sorted(every) == [(shard, row) for shard, count in enumerate(counts) for row in range(count)]
    sizes = [sum(map(len, rank)) for rank in ranks]
    assert sizes == [order.size() for order in orders]
    assert max(sizes) - min(sizes) <= 1
    for rank in ranks:
        assert max(map(len, rank)) - min(map(len, rank)) <= 1


def test_drop_last_makes_ranks_equal_and_leaves_out_others_in_each_epoch():
    counts = np.array([5, 4, 5])

    def every(epoch):
        orders = [Order(counts, True, 9, 0, True, Place(rank, 4)) for rank in range(4)]
        ranks = [rows(order.pieces(epoch)) for order in orders]
        assert [len(rank) for rank in ranks] == [3] * 4 == [order.size() for order in orders]
        return [row for rank in ranks for row in rank]

    seen = [every(epoch) for epoch in range(20)]
    assert {len(set(some)) for some in seen} == {12}
    assert {row for some in seen for row in some} == {
        (shard, row) for shard in range(3) for row in range(counts[shard])
    }


def test_mixing_keeps_every_item_and_moves_none_further_forward_than_the_buffer():
    found = list(mixed(range(500), 20, np.random.default_rng(0)))
    assert sorted(found) == list(range(500))
    assert found != list(range(500))
    assert all(item <= at + 20 for at, item in enumerate(found))


def test_rank_and_world_size_are_given_or_those_of_the_environment(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Place.find(None, None) == (0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert Place.find(None, None) == (2, 4)
    assert Place.find(1, 2) == (1, 2)
    with pytest.raises(ValueError, match="give both"):
        Place.find(1, None)
    with pytest.raises(ValueError, match="rank 2 of world_size 2"):
        Place.find(2, 2)
