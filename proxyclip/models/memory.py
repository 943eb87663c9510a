"""How much of something memory takes at once, found out by trying."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

logger = logging.getLogger(__name__)

T = TypeVar("T")


class OutOfMemory(RuntimeError):  # noqa: N818
    """An image does not fit into the memory of the device, however small its parts are made."""


class Portion:
    """A number of things worked on together, halved for good whenever memory does not suffice."""

    def __init__(self, name: str, size: int, *, smallest: int = 1) -> None:
        self.size = size
        self._name = name
        self._smallest = smallest

    def fit(self, work: Callable[[int], T]) -> T:
        """The result of `work(size)`, begun again with half the size until it fits.

        Raises OutOfMemory where not even the smallest size fits; the size then stays what it was, since the fault
        lies with what was worked on.
        """
        size = self.size
        while True:
            if found := _try(work, size):
                break
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if size <= self._smallest:
                raise OutOfMemory(
                    f"memory does not suffice for {size} {self._name} at once, which is the smallest part"
                )
            size = max(size // 2, self._smallest)
        if size < self.size:
            logger.warning("Memory does not suffice for %d %s at once: %d from here on.", self.size, self._name, size)
            self.size = size
        return found[0]


def _try(work: Callable[[int], T], size: int) -> tuple[T] | None:
    """`work(size)`, or None where memory did not suffice."""
    try:
        return (work(size),)
    except (torch.OutOfMemoryError, MemoryError):
        pass
    except RuntimeError as error:  # what the CPU's allocator raises has no class of its own
        if "DefaultCPUAllocator" not in str(error):
            raise
    # The error is gone by now, and with it the tensors that its traceback held.
    return None
