"""How often each shard was started in this run: a shard that keeps killing its worker must not be tried for ever."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayError

# Machines die under shards that are innocent, but hardly three times under the same one.
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
    """Counts in an actor of its own that ends with the driver: two small calls per shard.

    Ray Data starts a dead actor again and gives it the same shards, without end.
    """

    def __init__(self) -> None:
        self._counts: Any = ray.remote(_Counts).options(num_cpus=0, max_restarts=-1).remote()

    def count(self, shard: int) -> int:
        """How often a shard was started. Raises RuntimeError where that was too often without an end."""
        starts = self._ask(self._counts.count, shard) or 0
        if starts >= MAX_STARTS:
            raise RuntimeError(
                f"its worker died {MAX_STARTS} times while labelling it; set aside, the next run tries it again"
            )
        return starts

    def add(self, shard: int) -> None:
        """Note that a shard is started."""
        self._ask(self._counts.add, shard)

    def _ask(self, method: Any, shard: int) -> int | None:
        try:
            answer: int | None = ray.get(method.remote(shard), timeout=_ANSWER_TIMEOUT_S)
        except RayError:
            return None  # its node died; counting begins anew, and labelling goes on
        return answer


class Turns:
    """Shards that a worker has at once: several, or one alone, which dies without company if it must."""

    def __init__(self, shards_at_once: int) -> None:
        self._size = shards_at_once
        self._places = threading.Semaphore(shards_at_once)
        self._door = threading.Lock()  # who waits for all places is not overtaken for ever

    @contextlib.contextmanager
    def take(self, *, alone: bool) -> Iterator[None]:
        """Wait for a place, or for all of them."""
        wanted = self._size if alone else 1
        with self._door:
            for _ in range(wanted):
                self._places.acquire()
        try:
            yield
        finally:
            self._places.release(wanted)
