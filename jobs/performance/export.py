"""Exports: images per second of each format, in one process without Ray."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from performance.tables import Row
from proxyclip.export.options import ExportOptions
from proxyclip.export.registry import FORMATS
from proxyclip.pipeline.export.run import export

_CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("png", "png, as stored", {}),
    ("png", "png, --ignore-below 0.5", {"ignore_below": 0.5}),
    *((name, name, {}) for name in FORMATS if name != "png"),
]


def measure_export(labels: Path, rounds: int) -> list[Row]:
    """A row for each format. Formats whose library is missing have none."""
    rows = []
    for to, shown, changes in _CASES:
        speeds, size = [], 0
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                options = ExportOptions(str(labels), f"{folder}/to", to, **changes)  # type: ignore[arg-type]
                started = time.perf_counter()
                try:
                    done = export(options)
                except ImportError:
                    break
                speeds.append(done.exported / (time.perf_counter() - started))
                size = sum(path.stat().st_size for path in Path(folder, "to").rglob("*") if path.is_file())
        if speeds:
            rows.append(
                {
                    "format": shown,
                    "images": f"{done.exported}",
                    "images/s": f"{statistics.median(speeds):.0f}",
                    "KiB an image": f"{size / 1024 / done.exported:.1f}",
                }
            )
    return rows
