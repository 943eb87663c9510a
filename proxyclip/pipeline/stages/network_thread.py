"""The one thread of an actor that runs the networks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from queue import PriorityQueue
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class NetworkThread:
    """Runs one task after the other. Tasks of the earliest shard come first, so that shards finish early.

    It is a single thread because torch gives each thread that computes its own set of CPU threads.
    threads: CPU threads that the networks use.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._tickets = count()  # tasks of the same order run in the order in which they were submitted
        self._queue: PriorityQueue[tuple[int, int, Callable[[], None]]] = PriorityQueue()
        threading.Thread(target=self._work, name="networks", daemon=True).start()

    def submit(self, order: int, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Run `work(*arguments)` before every task that has a higher order."""
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
            del task  # it holds images and labels, which must not stay in memory while this thread waits
