"""What a gallery costs: seconds and bytes an image, and how soon its page is usable in a browser."""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path

from performance.tables import Row
from proxyclip.gallery.build import gallery
from proxyclip.gallery.options import GalleryOptions
from proxyclip.storage.store import Storage

# The masks of four cards are drawn.
_USABLE = "document.querySelectorAll('.card[data-drawn]').length >= 4"


def measure_gallery(output: str, compare: str | None, limit: int, rounds: int, folder: Path) -> list[Row]:
    """One row: medians over the rounds. folder: where to write the gallery."""
    seconds = []
    for number in range(rounds):
        to = folder / f"gallery-{number}"
        started = time.perf_counter()
        built = gallery(GalleryOptions(output, to=str(to), limit=limit, compare=compare))
        seconds.append(time.perf_counter() - started)
    size_bytes = sum(entry.size_bytes for entry in Storage(str(to)).list())
    usable = _usable_s(built.index, rounds) if built.shown >= 4 else None
    return [
        {
            "images": str(built.shown),
            "outputs": "2" if compare else "1",
            "build, s": f"{statistics.median(seconds):.1f}",
            "images/s": f"{built.shown / statistics.median(seconds):.0f}",
            "kB an image": f"{size_bytes / built.shown / 1000:.1f}",
            "MB": f"{size_bytes / 1e6:.1f}",
            "usable after, s": "not measured" if usable is None else f"{usable:.2f}",
        }
    ]


def _usable_s(index: str, rounds: int) -> float | None:
    """Median seconds from opening the page until its first masks are drawn; None without playwright and chromium."""
    chromium = shutil.which("chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if chromium is None:
        return None
    seconds = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(rounds):
            page = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
            started = time.perf_counter()
            page.goto(f"file://{index}", wait_until="commit")
            while not page.evaluate(_USABLE):
                time.sleep(0.01)
            seconds.append(time.perf_counter() - started)
            page.context.close()
        browser.close()
    return statistics.median(seconds)
