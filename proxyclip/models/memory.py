"""A batch size that halves when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)

T = TypeVar("T")


class OutOfMemory(RuntimeError):  # noqa: N818
    """An image does not fit into the memory of the device, even with the smallest batch size."""


class BatchSize:
    """How many `name` ("windows") are worked on together."""

    def __init__(self, name: str, size: int, *, smallest: int = 1) -> None:
        self.size = size
        self._name = name
        self._smallest = smallest

    def fit(self, work: Callable[[int], T]) -> T:
        """Return `work(size)`. While memory runs out, halve the size and try again; later calls keep the new size.

        Raises OutOfMemory if not even the smallest size fits. The size then stays as it was, since the cause is this
        piece of work.
        """
        size = self.size
        while True:
            if found := _try(work, size):
                break
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if size <= self._smallest:
                raise OutOfMemory(f"out of memory with {size} {self._name} at once, which is the smallest batch")
            size = max(size // 2, self._smallest)
        if size < self.size:
            logger.warning("Out of memory with %d %s at once; using %d from now on.", self.size, self._name, size)
            self.size = size
        return found[0]


def _try(work: Callable[[int], T], size: int) -> tuple[T] | None:
    """`(work(size),)`, or None if memory ran out."""
    try:
        return (work(size),)
    except (torch.OutOfMemoryError, MemoryError):
        pass
    except RuntimeError as error:  # torch's CPU allocator raises no class of its own
        if "DefaultCPUAllocator" not in str(error):
            raise
    # Return only here: the error is gone, and with it the tensors that its traceback held.
    return None
