"""Who takes the CPU: the processes of a job, by what they do."""

from __future__ import annotations

import contextlib
from collections import Counter

import psutil


class Accounts:
    """CPU seconds and memory of a driver and all that it started, from samples: who ends is not forgotten."""

    def __init__(self, driver: psutil.Process) -> None:
        self._driver = driver
        self._seen: dict[int, tuple[str, float, float]] = {}  # by process id: kind, CPU seconds, peak MB

    def cpu_seconds(self) -> Counter[str]:
        """CPU seconds so far, by kind of process."""
        self._sample()
        total: Counter[str] = Counter()
        for kind, seconds, _ in self._seen.values():
            total[kind] += seconds  # type: ignore[assignment]  # typeshed's counters count whole things
        return total

    def peak_mb(self, kind: str) -> float:
        """The most memory that one process of a kind was seen with, in MB."""
        return max((peak for found, _, peak in self._seen.values() if found == kind), default=0.0)

    def _sample(self) -> None:
        for process in (self._driver, *self._driver.children(recursive=True)):
            with contextlib.suppress(psutil.Error), process.oneshot():
                command, times = " ".join(process.cmdline()), process.cpu_times()
                kind, _, peak = self._seen.get(process.pid, ("", 0.0, 0.0))
                if command or not kind:  # of one that just died it is empty
                    kind = "driver" if process.pid == self._driver.pid else _kind(command)
                memory = process.memory_info().rss / 1e6
                self._seen[process.pid] = (kind, times.user + times.system, max(peak, memory))


def _kind(command: str) -> str:
    """What a process does. Ray writes the class or task at work into the command line of its workers."""
    if "proxyclip.images.readers" in command:
        return "decoders"
    if "MapWorker" in command:
        return "actors"
    # Idle ones, too: reading and writing share their workers. Ray's own actors have names with an underscore.
    name = command.removeprefix("ray::")
    if name != command and not name.startswith("_") and "Agent" not in name and "Tracker" not in name:
        return "readers and writers"
    return "Ray's own"
