"""Retries: who counts them, how many there are, and how long the pauses are."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxyclip.storage import retry
from proxyclip.storage.retry import carry, count_retries, persist


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.0)


def request(failures: int) -> str:
    """A request that fails some times, then succeeds."""
    left = iter([ConnectionResetError()] * failures)

    def answer() -> str:
        for error in left:
            raise error
        return "answer"

    return persist(answer, failures + 1)


def test_a_block_counts_the_retries_inside_it():
    request(1)
    with count_retries() as retries:
        assert retries.count == 0
        assert request(3) == "answer"
        assert retries.count == 3
        request(2)
    request(4)
    assert retries.count == 5


def test_an_outer_block_counts_what_its_inner_blocks_count():
    with count_retries() as outer:
        request(1)
        with count_retries() as first:
            request(2)
        with count_retries() as second:
            request(3)
    assert (outer.count, first.count, second.count) == (6, 2, 3)


def test_a_block_that_fails_keeps_its_count_and_ends():
    with pytest.raises(ConnectionResetError), count_retries() as retries:
        persist(broken, 3)
    request(1)
    assert retries.count == 2


def broken() -> None:
    raise ConnectionResetError


def test_other_threads_are_not_counted_unless_the_block_is_carried_along():
    with ThreadPoolExecutor(4) as pool, count_retries() as retries:
        list(pool.map(request, [1, 2, 3]))
        assert retries.count == 0
        assert list(pool.map(carry(request), [1, 2, 3] * 10)) == ["answer"] * 30
        assert retries.count == 60
        list(pool.map(request, [1] * 8))  # the threads do not keep the block
    assert retries.count == 60


def test_two_shards_at_once_count_their_own_retries():
    """Both are inside their blocks at the same time, and one pool of threads serves both."""
    both_inside = threading.Barrier(2, timeout=300)

    def shard(failures: int) -> int:
        with count_retries() as retries:
            both_inside.wait()
            request(failures)
            list(pool.map(carry(request), [failures] * 10))
            both_inside.wait()
        return retries.count

    with ThreadPoolExecutor(4) as pool, ThreadPoolExecutor(2) as shards:
        assert list(shards.map(shard, [1, 2])) == [11, 22]


def test_pauses_double_up_to_a_limit_and_are_cut_at_random(monkeypatch):
    pauses = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.2)
    request(12)
    longest = [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20, 20, 20, 20, 20]
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses, longest, strict=True))
    assert len({pause / limit for pause, limit in zip(pauses, longest, strict=True)}) > 1


def test_tries_are_limited_in_number_and_time(monkeypatch):
    with count_retries() as retries, pytest.raises(ConnectionResetError):
        persist(broken, 5)
    assert retries.count == 4
    monkeypatch.setattr(retry, "GIVE_UP_AFTER_S", -1.0)
    with count_retries() as retries, pytest.raises(ConnectionResetError):
        persist(broken, 5)
    assert retries.count == 0


def test_an_error_that_does_not_pass_is_raised_at_once():
    tries = []

    def missing() -> None:
        tries.append(1)
        raise FileNotFoundError

    with count_retries() as retries, pytest.raises(FileNotFoundError):
        persist(missing, 5)
    assert (len(tries), retries.count) == (1, 0)
