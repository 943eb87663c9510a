"""How long a user waits before images are labelled: --help, refusals, a finished run, and the first shard of a run.

Every measurement is a whole process, from its start to its end (or to the first commit).
"""

from __future__ import annotations

import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from performance.tables import Row

ROOT = Path(__file__).parents[2]
NUM_IMAGES, SHARD_SIZE = 24, 8

_TIMEOUT_S = 120  # a slower command is ended and shown as "> 120"
_POLL_S = 0.01


@dataclass(frozen=True)
class Case:
    """A command. words: what follows `proxyclip`. limit_s: what it may take. environment: replaces variables."""

    name: str
    limit_s: float | None
    words: tuple[str, ...]
    exit_code: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    until_first_commit: bool = False


def measure_startup(checkout: Path | None, rounds: int) -> list[Row]:
    """Rows of a table, one a command. checkout: folder of another version of the project, measured by turns."""
    checkouts = {"this": ROOT} | ({"other": checkout} if checkout is not None else {})
    times: dict[tuple[str, str], list[float]] = {}
    cases: list[Case] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hub = stack.enter_context(_silent_server())
        _draw_images(folder / "images")
        for number in range(rounds):
            outputs = {name: folder / name / str(number) for name in checkouts}
            by_checkout = {name: _cases(root, folder, outputs[name], hub) for name, root in checkouts.items()}
            cases = by_checkout["this"]
            for index, case in enumerate(cases):
                for name in checkouts if number % 2 == 0 else reversed(checkouts):
                    seconds = _seconds(by_checkout[name][index], checkouts[name], folder, outputs[name])
                    times.setdefault((case.name, name), []).append(seconds)
    return [_row(case, {name: times[case.name, name] for name in checkouts}) for case in cases]


def _cases(root: Path, folder: Path, output: Path, silent_hub: str) -> list[Case]:
    """The commands in an order in which each finds what it needs: the first shard's run is the finished one later."""
    vocabulary = str(root / "proxyclip" / "demo" / "vocabulary.json")

    def label(vocabulary: str = vocabulary, preset: str = "demo", images: str = "images") -> tuple[str, ...]:
        run = ("--input", str(folder / images), "--output", str(output), "--shard-size", str(SHARD_SIZE))
        return ("label", *run, "--vocabulary", vocabulary, "--preset", preset)

    full_size = label(preset="proxyclip-b16-dino-b8")
    missing = ("--clip-weights", str(folder / "clip.pt"), "--proxy-weights", str(folder / "proxy.pt"))
    no_hub = {"HF_HUB_CACHE": str(folder / "empty"), "HF_HUB_OFFLINE": "0"}
    return [
        Case("proxyclip --help", 1, ("--help",)),
        Case("proxyclip label --help", 1, ("label", "--help")),
        Case("refusal: mistyped vocabulary", 2, label(vocabulary="vco21"), 2),
        Case("refusal: mistyped preset", 2, label(preset="proxyclip-b16-dino-b9"), 2),
        Case("refusal: input folder missing", 2, label(images="imagse"), 2),
        Case("refusal: weights file missing", 2, (*full_size, *missing), 2),
        Case("refusal: weights by name, no network", 10, full_size, 2, no_hub | {"HF_ENDPOINT": "http://127.0.0.1:9"}),
        Case("refusal: weights by name, hub is silent", 10, full_size, 2, no_hub | {"HF_ENDPOINT": silent_hub}),
        Case(f"first of 3 shards, {NUM_IMAGES} images", None, label(), until_first_commit=True),
        Case(f"finished run, {NUM_IMAGES} images", 3, label()),
        Case("refusal: another recipe", 2, (*label(), "--confidence-stride", "8"), 2),
    ]


def _seconds(case: Case, root: Path, folder: Path, output: Path) -> float:
    """What the command takes, infinite if it was ended. It runs in an empty folder, since Python imports from there."""
    here = folder / "here"
    here.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(root)} | case.environment
    log = folder / "log.txt"
    with log.open("wb") as said:
        started = time.perf_counter()
        process = subprocess.Popen(
            _command(root, case.words),
            cwd=here,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        if case.until_first_commit:
            while process.poll() is None and not any((output / "commits").glob("*.json")):
                time.sleep(_POLL_S)
            seconds = time.perf_counter() - started
            exit_code = process.wait()  # the commands after it need a finished run
        else:
            try:
                exit_code = process.wait(_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return math.inf
            seconds = time.perf_counter() - started
    if exit_code != case.exit_code:
        raise RuntimeError(
            f"{case.name}, in {root}: exit code {exit_code} instead of {case.exit_code}. The command said:\n"
            f"{log.read_text(errors='replace')[-2000:]}"
        )
    return seconds


def _command(root: Path, words: tuple[str, ...]) -> list[str]:
    """`proxyclip WORDS` of a version. The other one may have no `proxyclip label`, but jobs/label.py does the same."""
    if words[0] == "label" and root != ROOT:
        return [sys.executable, str(root / "jobs" / "label.py"), *words[1:]]
    return [sys.executable, "-m", "proxyclip.cli", *words]


def _row(case: Case, times: dict[str, list[float]]) -> Row:
    row = {"command": case.name, "limit, s": f"{case.limit_s:g}" if case.limit_s else ""}
    for name, seconds in times.items():
        figures = (min(seconds), statistics.median(seconds), max(seconds))
        row[f"{name}, s"] = " / ".join(f"> {_TIMEOUT_S}" if math.isinf(each) else f"{each:.2f}" for each in figures)
    if len(times) == 2:
        this, other = map(statistics.median, times.values())
        row["this / other"] = f"< {this / _TIMEOUT_S:.2f}" if math.isinf(other) else f"{this / other:.2f}"
    return row


def _draw_images(folder: Path) -> None:
    command = [sys.executable, "-m", "proxyclip.demo.scenes", str(folder), "--count", str(NUM_IMAGES)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


@contextmanager
def _silent_server() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
