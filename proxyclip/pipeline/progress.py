"""Progress of a run: a bar on a terminal, a line every ten seconds elsewhere, or a line of JSON for every commit."""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime, timezone
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)

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

    def shard_failed(self, shard: int, error: str) -> None:
        """A shard that is not committed; the run lists it at its end."""

    def add(self, labelled: int, failed: int, *, shard: int | None = None) -> None:
        """Count the images of one shard."""
        rate, now = self._count(labelled, failed), time.monotonic()
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

    def _count(self, labelled: int, failed: int) -> float:
        """Add the images of a shard. Returns images per second of this run."""
        self.done += labelled + failed
        self.failed += failed
        return (self.done - self._before) / max(time.monotonic() - self._started, 1e-9)


class CommitLog(RunProgress):
    """Logs every commit and every failed shard with its numbers; `JsonLines` writes them as JSON."""

    def __enter__(self) -> CommitLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass

    def shard_failed(self, shard: int, error: str) -> None:
        """One line."""
        logger.error("shard failed", extra={"event": {"shard": shard, "error": error}})

    def add(self, labelled: int, failed: int, *, shard: int | None = None) -> None:
        """Count the images of one shard, and log one line."""
        rate = self._count(labelled, failed)
        event = {
            "shard": shard,
            "labelled": labelled,
            "failed": failed,
            "images_done": self.done,
            "images_failed": self.failed,
            "images_planned": self.num_images,
            "images_per_s": round(rate, 3),
        }
        logger.info("commit", extra={"event": event})


class JsonLines(logging.Formatter):
    """A log record as one line of JSON: time (UTC), level, message, and the numbers of a commit."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        when = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        fields = {"time": when, "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields | getattr(record, "event", {}), ensure_ascii=False)


def log_json_lines() -> None:
    """Write this package's log, and warnings of others, to stderr as lines of JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler])
    logging.getLogger("proxyclip").setLevel(logging.INFO)
