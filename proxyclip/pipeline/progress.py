"""Progress of a run: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_INTERVAL_S = 10.0


class RunProgress:
    """Counts images as shards are committed.

    done, failed: images of earlier runs on the same output. verb: what the bar says is done to them.
    """

    def __init__(self, num_images: int, done: int, failed: int, *, verb: str = "labelling") -> None:
        self.num_images = num_images
        self.done = self._before = done
        self.failed = failed
        self._started = self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn(verb),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} images, {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(verb, total=num_images, completed=done, rate="starting")

    def __enter__(self) -> RunProgress:
        if self._bar.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar.console.is_terminal:
            self._bar.stop()

    def add(self, labelled: int, failed: int) -> None:
        """Count the images of one shard."""
        self.done += labelled + failed
        self.failed += failed
        now = time.monotonic()
        rate = (self.done - self._before) / max(now - self._started, 1e-9)
        shown = f"{rate:.1f} images/s" + (f", {self.failed} failed" if self.failed else "")
        self._bar.update(self._task, completed=self.done, rate=shown)
        if not self._bar.console.is_terminal and (
            now - self._last_line >= LINE_INTERVAL_S or self.done == self.num_images
        ):
            self._last_line = now
            left_s = (self.num_images - self.done) / max(rate, 1e-9)
            self._bar.console.print(
                f"{self.done}/{self.num_images} images, {shown}, {left_s:.0f} s left", highlight=False
            )
