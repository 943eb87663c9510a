"""The job against a plain loop around the Segmenter: same images, same machine, one core for the networks."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from performance.tables import Row
from proxyclip.images.reading import read_image
from proxyclip.models.segmenter import Segmenter
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.recipe import segmenter_config
from proxyclip.pipeline.stages.decode import decode_images
from proxyclip.vocabulary.names import Vocabulary

ROOT = Path(__file__).parents[2]
_POLL_S = 0.1


@dataclass
class LoopTimes:
    """What the plain loop took: seconds, CPU seconds, and seconds of each stage."""

    images: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    stages: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))


@dataclass
class JobTimes:
    """What the job took.

    images, seconds, cpu_s (by kind of process): between the first and the last commit. first_shard_s: from the start
    of the process to the first commit. actor_mb: the highest memory of an actor.
    """

    images: int
    seconds: float
    cpu_s: Counter[str]
    first_shard_s: float
    actor_mb: float


def measure_pipeline(options: LabelOptions) -> list[Row]:
    """Rows of a table: the loop, and the job."""
    loop: LoopTimes = in_a_process(time_loop, dataclasses.replace(options, output=""))
    job = time_job(options)
    loop_cpu, job_cpu = 1e3 * loop.cpu_s / loop.images, 1e3 * job.cpu_s.total() / job.images
    loop_rate, job_rate = loop.images / loop.seconds, job.images / job.seconds
    stages = ", ".join(f"{name} {1e3 * seconds / loop.images:.2f}" for name, seconds in loop.stages.items())
    kinds = ", ".join(f"{kind} {1e3 * seconds / job.images:.2f}" for kind, seconds in job.cpu_s.most_common())
    rows = [
        ("plain loop", f"{loop_rate:.1f}", "", f"{loop_cpu:.2f}", stages),
        ("pipeline", f"{job_rate:.1f}", f"{100 * job_rate / loop_rate:.0f} %", f"{job_cpu:.2f}", kinds),
    ]
    columns = ("", "images/s", "of the loop", "CPU ms an image", "of which")
    table = [dict(zip(columns, row, strict=True)) for row in rows]
    table[0] |= {"first shard, s": "", "largest actor, MB": ""}
    table[1] |= {"first shard, s": f"{job.first_shard_s:.1f}", "largest actor, MB": f"{job.actor_mb:.0f}"}
    return table


def small_job(images: Path, output: Path) -> LabelOptions:
    """The demo's networks on two windows of 112 pixels an image, with one thread."""
    vocabulary = str(ROOT / "proxyclip" / "demo" / "vocabulary.json")
    return LabelOptions(
        *(str(images), str(output), vocabulary),
        preset="demo",
        short_side=112,
        crop=112,
        stride=112,
        shard_size=25,
        threads=1,
    )


def in_a_process(work: Any, *arguments: Any) -> Any:
    """The result of `work` in a new process, which inherits no state from this one."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def time_loop(options: LabelOptions) -> LoopTimes:
    """Label the images of `options.input` one after the other, and make the PNGs as the job does."""
    torch.set_num_threads(options.threads or 1)
    vocabulary = Vocabulary.load(str(options.vocabulary), options.embeddings)
    segmenter = Segmenter.from_config(segmenter_config(options, vocabulary), device="cpu")
    windows, stride, colours = segmenter.config.windows, options.confidence_stride, vocabulary.colours
    times = LoopTimes()
    started = cpu = 0.0

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        times.stages[name] += time.perf_counter() - started

    files = sorted(Path(options.input).iterdir())
    for file in [*files[:3], None, *files]:
        if file is None:  # the first three were a warm-up
            times, started, cpu = LoopTimes(), time.perf_counter(), time.process_time()
            continue
        with stage("reading and resizing"):
            image = read_image(file.read_bytes(), windows)
        with stage("networks"):
            features = segmenter.encode(image)
        with stage("labels"):
            (labels,) = decode_images(segmenter, [features], vocabulary, stride)
        with stage("PNG"):
            labels.compressed(file.name, colours)
    times.images = len(files)
    times.seconds, times.cpu_s = time.perf_counter() - started, time.process_time() - cpu
    return times


def time_job(options: LabelOptions, checkout: Path = ROOT) -> JobTimes:
    """Run the job as a user does, and watch its commits and its processes from outside.

    options: with absolute paths. checkout: folder of the version whose jobs/label.py and package run.
    """
    commits = Path(options.output) / "commits"
    images = len(list(Path(options.input).iterdir()))
    shards = -(-images // options.shard_size)
    command = [sys.executable, str(checkout / "jobs" / "label.py"), *_words(options)]
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=Path(options.output).parent,  # workers import from the current folder first: it must hold no proxyclip
        stdout=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(checkout), os.environ.get("PYTHONPATH", "")])},
    )
    accounts = Accounts(psutil.Process(process.pid))
    first = last = None
    while process.poll() is None and last is None:
        done = len(list(commits.glob("*.json"))) if commits.is_dir() else 0
        now = (time.perf_counter(), accounts.cpu_seconds(), done)
        first = first or (now if done else None)
        last = now if done == shards else None
        time.sleep(_POLL_S)
    if process.wait() or first is None or last is None:
        raise RuntimeError(
            f"The job ended with exit code {process.returncode} before all {shards} shards were seen; "
            "its own output above says why."
        )
    return JobTimes(
        images=images - min(first[2] * options.shard_size, images),
        seconds=last[0] - first[0],
        cpu_s=last[1] - first[1],
        first_shard_s=first[0] - started,
        actor_mb=accounts.peak_mb("actors"),
    )


def _words(options: LabelOptions) -> list[str]:
    """The options as a user types them."""
    words = []
    for option in dataclasses.fields(options):
        if (value := getattr(options, option.name)) != option.default:
            words += [f"--{option.name.replace('_', '-')}", str(value)]
    return words


class Accounts:
    """CPU seconds and memory of a driver and all its descendants, sampled; ended processes stay counted."""

    def __init__(self, driver: psutil.Process) -> None:
        self._driver = driver
        self._seen: dict[int, tuple[str, float, float]] = {}  # by process id: kind, CPU seconds, peak MB

    def cpu_seconds(self) -> Counter[str]:
        """CPU seconds so far, by kind of process."""
        self._sample()
        total: Counter[str] = Counter()
        for kind, seconds, _ in self._seen.values():
            total[kind] += seconds  # type: ignore[assignment]  # typeshed's counters hold integers
        return total

    def peak_mb(self, kind: str) -> float:
        """The highest memory seen in one process of a kind, in MB."""
        return max((peak for found, _, peak in self._seen.values() if found == kind), default=0.0)

    def _sample(self) -> None:
        for process in (self._driver, *self._driver.children(recursive=True)):
            with contextlib.suppress(psutil.Error), process.oneshot():
                command, times = " ".join(process.cmdline()), process.cpu_times()
                kind, _, peak = self._seen.get(process.pid, ("", 0.0, 0.0))
                if command or not kind:  # the command line of a process that has just died is empty
                    kind = "driver" if process.pid == self._driver.pid else kind_of_process(command)
                memory = process.memory_info().rss / 1e6
                self._seen[process.pid] = (kind, times.user + times.system, max(peak, memory))


def kind_of_process(command: str) -> str:
    """What a process does, from its command line. Ray's workers show their class or task there."""
    if "proxyclip.images.readers" in command:
        return "image readers"
    if "MapWorker" in command:
        return "actors"
    # Idle workers count here, too: reading and writing share them. Ray's own actors begin with an underscore.
    name = command.removeprefix("ray::")
    if name != command and not name.startswith("_") and "Agent" not in name and "Tracker" not in name:
        return "shard readers and writers"
    return "Ray's own"
