"""How often each shard was started in this run: a shard that keeps killing its worker must not be tried for ever."""

from __future__ import annotations

from collections import Counter
from typing import Any

import ray
from ray.exceptions import RayError

# Machines die under shards that are innocent, but hardly three times under the same one.
MAX_STARTS = 3
_ANSWER_TIMEOUT_S = 30.0


class _Counts:
    def __init__(self) -> None:
        self._starts: Counter[int] = Counter()

    def start(self, shard: int) -> int:
        self._starts[shard] += 1
        return self._starts[shard]


class Starts:
    """Counts in an actor of its own that ends with the driver: one small call per shard.

    Ray Data starts a dead actor again and gives it the same shard, without end.
    """

    def __init__(self) -> None:
        self._counts: Any = ray.remote(_Counts).options(num_cpus=0, max_restarts=-1).remote()

    def check(self, shard: int) -> None:
        """Note that a shard is started. Raises RuntimeError where it was started too often without an end."""
        try:
            starts = ray.get(self._counts.start.remote(shard), timeout=_ANSWER_TIMEOUT_S)
        except RayError:
            return  # its node died; counting begins anew, and labelling goes on
        if starts > MAX_STARTS:
            raise RuntimeError(
                f"its worker died {MAX_STARTS} times while labelling it; set aside, the next run tries it again"
            )
