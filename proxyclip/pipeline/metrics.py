"""What a running job counts for Prometheus, through Ray's metrics; docs/monitoring.md lists it."""

from __future__ import annotations

import time

from ray.util.metrics import Counter, Gauge

from proxyclip.pipeline.stages.write import Receipt
from proxyclip.storage.store import public_uri


class RunMetrics:
    """Counts the receipts of one output, in the driver: workers come and go, and what they count goes with them.

    Ray puts `ray_` before each name. On a machine of its own, without the dashboard, nobody reads them.
    """

    def __init__(self, output: str, pending: int) -> None:
        self._output = {"output": public_uri(output)}
        self._images = Counter("proxyclip_images", "Images of committed shards, by outcome.", ("output", "status"))
        self._failed_shards = _counter("shards_failed", "Shards that failed; the next run tries them again.")
        self._windows = _counter("windows", "Windows that the networks have seen.")
        self._bytes = _counter("read_bytes", "Bytes of the images that were read.")
        self._retries = _counter("retries", "Storage requests that were sent again.")
        self._pending = _gauge("shards_pending", "Planned shards that this run has still to do.")
        self._last_commit = _gauge("last_commit_timestamp_seconds", "Time of the last commit, or of the start.")
        self._num_pending = pending
        self._last_commit.set(time.time(), self._output)
        self._pending.set(pending, self._output)

    def count(self, receipt: Receipt) -> None:
        """Count a shard that is committed or has failed."""
        self._num_pending -= 1
        self._pending.set(self._num_pending, self._output)
        self._add(self._retries, receipt.retries)
        self._add(self._bytes, receipt.read_bytes)
        self._add(self._windows, receipt.windows)
        if receipt.error is not None:
            self._add(self._failed_shards, 1)
            return
        self._add(self._images, receipt.labelled, status="labelled")
        for status in receipt.failures:
            self._add(self._images, 1, status=status)
        self._last_commit.set(time.time(), self._output)

    def _add(self, counter: Counter, number: int, **tags: str) -> None:
        if number:  # Ray refuses to add nothing
            counter.inc(number, self._output | tags)


def _counter(name: str, description: str) -> Counter:
    return Counter(f"proxyclip_{name}", description, ("output",))


def _gauge(name: str, description: str) -> Gauge:
    return Gauge(f"proxyclip_{name}", description, ("output",))
