"""How often each shard was started in this run, so that a shard that kills its worker is not tried for ever."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayError

# A machine may die while it works on a harmless shard, but hardly three times on the same one.
MAX_STARTS = 3
_ANSWER_TIMEOUT_S = 30.0


class _Counts:
    def __init__(self) -> None:
        self._starts: Counter[int] = Counter()

    def count(self, shard: int) -> int:
        return self._starts[shard]

    def add(self, shard: int) -> None:
        self._starts[shard] += 1


class Starts:
    """Counts starts in a Ray actor of its own, which ends with the driver: two small calls per shard.

    Without it, Ray Data would restart a dead actor and give it the same shards again and again.
    """

    def __init__(self) -> None:
        self._counts: Any = ray.remote(_Counts).options(num_cpus=0, max_restarts=-1).remote()

    def count(self, shard: int) -> int:
        """How often a shard was started. Raises RuntimeError after MAX_STARTS starts without an end."""
        starts = self._ask(self._counts.count, shard) or 0
        if starts >= MAX_STARTS:
            raise RuntimeError(f"its worker died {MAX_STARTS} times while labelling it; the next run tries it again")
        return starts

    def add(self, shard: int) -> None:
        """Count a start of a shard."""
        self._ask(self._counts.add, shard)

    def _ask(self, method: Any, shard: int) -> int | None:
        try:
            answer: int | None = ray.get(method.remote(shard), timeout=_ANSWER_TIMEOUT_S)
        except RayError:
            return None  # the node of the counting actor died: it counts anew, and labelling goes on
        return answer


class Turns:
    """Limits the shards that a worker has at once: several, or a single one that may kill its worker."""

    def __init__(self, shards_at_once: int) -> None:
        self._size = shards_at_once
        self._places = threading.Semaphore(shards_at_once)
        self._door = threading.Lock()  # so that nobody overtakes a shard that waits for all places

    @contextlib.contextmanager
    def take(self, *, alone: bool) -> Iterator[None]:
        """Wait for one place, or for all of them."""
        wanted = self._size if alone else 1
        with self._door:
            for _ in range(wanted):
                self._places.acquire()
        try:
            yield
        finally:
            self._places.release(wanted)
