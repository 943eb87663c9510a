"""Two versions of the project by turns: the same pieces of work, in a process of each.

Run as a script this file is such a process: it takes names of pieces from stdin, one a line, and answers each with the
seconds that it took. Both versions have the modules it needs, but in different packages.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]
QUERIES = (21, 150, 847)
Times = dict[str, dict[str, list[float]]]  # by piece of work and version


def compare_engines(
    checkout: Path, device: str, dtypes: Sequence[str], rounds: int, repeats: int
) -> list[dict[str, str]]:
    """Rows of a table: one image of 500 x 375 to features in each precision, and features to labels."""
    times: Times = {}
    for number in range(rounds):
        with contextlib.ExitStack() as stack:
            workers = {
                name: stack.enter_context(_worker(root, device, dtypes)) for name, root in _in_turn(checkout, number)
            }
            pieces = [f"encode {dtype}" for dtype in dtypes] + [f"decode {queries}" for queries in QUERIES]
            for piece in pieces:
                for repeat in range(repeats + 1):
                    for name, worker in workers.items():
                        seconds = _ask(worker, piece)
                        if repeat:  # the first is a warm-up
                            times.setdefault(piece, {}).setdefault(name, []).append(seconds)
    return [_row(_title(piece), each) for piece, each in times.items()]


def compare_pipelines(checkout: Path, folder: Path, rounds: int) -> list[dict[str, str]]:
    """Rows of a table for the demo's job on the JPEGs in `folder`/images, between its first and last commit."""
    from performance.pipeline import small_job, time_job

    times: Times = {}
    for number in range(rounds):
        for name, root in _in_turn(checkout, number):
            job = time_job(small_job(folder / "images", folder / f"{name}-{number}"), root)
            for what, seconds in (
                ("pipeline, an image", job.seconds / job.images),
                ("pipeline, CPU of all processes, an image", job.cpu_s.total() / job.images),
                ("pipeline, first shard", job.first_shard_s),
            ):
                times.setdefault(what, {}).setdefault(name, []).append(seconds)
    return [_row(what, each) for what, each in times.items()]


def _in_turn(checkout: Path, number: int) -> list[tuple[str, Path]]:
    """Both versions; every other round begins with the other one."""
    both = [("this", ROOT), ("other", checkout)]
    return both if number % 2 == 0 else both[::-1]


def _worker(root: Path, device: str, dtypes: Sequence[str]) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "jobs")])}
    command = [sys.executable, __file__, device, *dtypes]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def _ask(worker: subprocess.Popen[str], piece: str) -> float:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(piece + "\n")
    worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        raise RuntimeError(f"{' '.join(map(str, worker.args))}: the process ended; its own output above says why.")  # type: ignore[arg-type]
    return float(json.loads(answer))


def _title(piece: str) -> str:
    what, value = piece.split()
    return f"image to features, {value}" if what == "encode" else f"features to labels, {value} queries"


def _row(what: str, times: dict[str, list[float]]) -> dict[str, str]:
    this, other = statistics.median(times["this"]), statistics.median(times["other"])
    return {
        "medians": what,
        "this, ms": f"{1e3 * this:.1f}",
        "other, ms": f"{1e3 * other:.1f}",
        "this / other": f"{this / other:.3f}",
        "measured": f"{len(times['this'])} times each",
    }


def _serve(device: str, dtypes: Sequence[str]) -> None:
    """Time pieces of work until stdin ends. Networks are built and warmed up before the first one is timed."""
    work = _pieces(device, dtypes)
    for line in sys.stdin:
        started = time.perf_counter()
        work[line.strip()]()
        print(json.dumps(time.perf_counter() - started), flush=True)


def _pieces(device: str, dtypes: Sequence[str]) -> dict[str, Callable[[], Any]]:
    config, segmenter = import_module("proxyclip.config"), import_module("proxyclip.models.segmenter")
    engine, seeded = _module("engine"), _module("seeded")
    (image,) = seeded.drawn_images(1, (375, 500))
    pieces: dict[str, Callable[[], Any]] = {}
    for dtype in dtypes:
        model = config.SegmenterConfig(config.ModelConfig(dtype=dtype))
        networks = segmenter.Segmenter(seeded.seeded_clip(), seeded.seeded_proxy(), model, device=device)
        pieces[f"encode {dtype}"] = partial(_encode, networks, image)
    for queries in QUERIES:
        pieces[f"decode {queries}"] = engine.DecodingCase(queries, device).engine
    return pieces


def _encode(networks: Any, image: Any) -> Any:
    return networks.encode(image).features.cpu()


def _module(name: str) -> ModuleType:
    """A module of what measures speed: in jobs/, or in the package where older versions have it."""
    package = "performance" if find_spec("performance") else "proxyclip.speed"
    return import_module(f"{package}.{name}")


if __name__ == "__main__":
    del sys.path[0]  # this folder; PYTHONPATH says which version is meant
    _serve(sys.argv[1], sys.argv[2:])
