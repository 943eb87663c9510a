"""The one thread of an actor that feeds the networks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from queue import PriorityQueue
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class Device:
    """Does one piece of work after the other: what belongs to the earliest shard first, so that shards end early.

    One thread, since each that computes would have CPU threads of its own. threads: of those, for the networks.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._tickets = count()  # work of the same order is done as it came
        self._queue: PriorityQueue[tuple[int, int, Callable[[], None]]] = PriorityQueue()
        threading.Thread(target=self._work, name="device", daemon=True).start()

    def submit(self, order: int, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Have `work` done before all that has a higher order."""
        future: Future[T] = Future()

        def task() -> None:
            try:
                future.set_result(work(*arguments))
            except BaseException as error:
                future.set_exception(error)

        self._queue.put((order, next(self._tickets), task))
        return future

    def _work(self) -> None:
        torch.set_num_threads(self._threads)
        while True:
            *_, task = self._queue.get()
            task()
            del task  # and all that it holds, while this waits
