"""Who takes the CPU: the processes of a job, by what they do."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import psutil

KINDS = ("actors", "decoders", "readers and writers", "driver", "Ray's daemons")


def cpu_seconds(root: psutil.Process) -> Counter[str]:
    """CPU seconds so far of a driver and all that it started, by kind of process."""
    seconds: Counter[str] = Counter()
    for process, kind in _processes(root):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            seconds[kind] += times.user + times.system
    return seconds


def peak_rss_mb(root: psutil.Process) -> Counter[str]:
    """The largest memory that one process of each kind holds now, in MB; shared memory counts for each that sees it."""
    peak: Counter[str] = Counter()
    for process, kind in _processes(root):
        with contextlib.suppress(psutil.Error):
            peak[kind] = max(peak[kind], process.memory_info().rss / 1e6)
    return peak


def _processes(root: psutil.Process) -> Iterator[tuple[psutil.Process, str]]:
    yield root, "driver"
    for process in root.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            yield process, _kind(" ".join(process.cmdline()))


def _kind(command: str) -> str:
    """What a process does. Ray writes the class or task at work into the command line of its workers."""
    if "proxyclip.dataset.decoder" in command:
        return "decoders"
    if "MapWorker" in command:
        return "actors"
    # Idle ones, too: reading and writing share their workers.
    if command.startswith("ray::") and not command.endswith("Agent"):
        return "readers and writers"
    return "Ray's daemons"
