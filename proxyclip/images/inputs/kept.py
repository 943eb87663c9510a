"""Kept: values that many threads ask for and that are made once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """The last `size` values, by name. While one thread makes a value, others that ask for it wait."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[str, Future[T]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str, make: Callable[[], T]) -> T:
        """The value of this name, made now if it is not kept. An error is raised to all that wait, and not kept."""
        with self._lock:
            future = self._values.get(name)
            is_new = future is None
            if future is None:
                future = self._values[name] = Future()
            self._values.move_to_end(name)
            if len(self._values) > self._size:
                self._values.popitem(last=False)
        if is_new:
            try:
                future.set_result(make())
            except BaseException as error:
                with self._lock:
                    if self._values.get(name) is future:
                        del self._values[name]
                future.set_exception(error)
        return future.result()
