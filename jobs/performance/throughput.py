"""The job against a plain loop around the Segmenter: the same images on the same machine, one core for the networks."""

from __future__ import annotations

import dataclasses
import multiprocessing
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

from performance.accounts import Accounts
from proxyclip.config import LabelOptions
from proxyclip.images.reading import read_image
from proxyclip.models.segmenter import Segmenter
from proxyclip.pipeline.recipe import segmenter_config
from proxyclip.pipeline.stages.label import compressed, stored
from proxyclip.vocabulary.names import Vocabulary

_POLL_S = 0.1


@dataclass
class LoopTimes:
    """A plain loop: seconds in all, CPU seconds, and seconds of each stage."""

    images: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    stages: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))


@dataclass
class JobTimes:
    """The job between its first and its last commit, and what came before.

    images, seconds, cpu_s (by kind of process): from the first commit on. first_shard_s: from the start of the
    process to the first commit. actor_mb: the most memory that the actor had.
    """

    images: int
    seconds: float
    cpu_s: Counter[str]
    first_shard_s: float
    actor_mb: float


def in_a_process(work: Any, *arguments: Any) -> Any:
    """The result of `work` in a fresh process, which takes nothing over from this one."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def time_loop(options: LabelOptions) -> LoopTimes:
    """Label the images of `options.input`, one after the other, and compress the masks as the job does."""
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
        if file is None:  # warm
            times, started, cpu = LoopTimes(), time.perf_counter(), time.process_time()
            continue
        with stage("reading and resizing"):
            image = read_image(file.read_bytes(), windows)
        with stage("networks"):
            features = segmenter.encode(image)
        with stage("labels"):
            row = stored(segmenter.labels(features, vocabulary), vocabulary.num_classes, stride)
        with stage("PNG"):
            compressed(row, colours)
    times.images = len(files)
    times.seconds, times.cpu_s = time.perf_counter() - started, time.process_time() - cpu
    return times


def time_job(options: LabelOptions, script: Path) -> JobTimes:
    """Run the job as a user does, and watch its commits and its processes from outside. script: jobs/label.py."""
    commits = Path(options.output) / "commits"
    images = len(list(Path(options.input).iterdir()))
    shards = -(-images // options.shard_size)
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, str(script), *_words(options)], stdout=subprocess.DEVNULL)
    accounts = Accounts(psutil.Process(process.pid))
    first = last = None
    while process.poll() is None and last is None:
        done = len(list(commits.glob("*.json"))) if commits.is_dir() else 0
        now = (time.perf_counter(), accounts.cpu_seconds(), done)
        first = first or (now if done else None)
        last = now if done == shards else None
        time.sleep(_POLL_S)
    if process.wait() or first is None or last is None:
        raise RuntimeError(f"the job ended with {process.returncode}, {shards} shards wanted; what it said is above.")
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


def benchmark_pipeline(options: LabelOptions, script: Path) -> list[dict[str, str]]:
    """Rows of a table: the loop, the job, and what the job costs beyond the loop. script: jobs/label.py."""
    loop: LoopTimes = in_a_process(time_loop, dataclasses.replace(options, output=""))
    job = time_job(options, script)
    loop_cpu, job_cpu = 1e3 * loop.cpu_s / loop.images, 1e3 * job.cpu_s.total() / job.images
    loop_rate, job_rate = loop.images / loop.seconds, job.images / job.seconds
    shares = ", ".join(f"{name} {1e3 * seconds / loop.images:.2f}" for name, seconds in loop.stages.items())
    kinds = ", ".join(f"{kind} {1e3 * seconds / job.images:.2f}" for kind, seconds in job.cpu_s.most_common())
    rows = [
        ("plain loop", f"{loop_rate:.1f}", "", f"{loop_cpu:.2f}", shares),
        ("pipeline", f"{job_rate:.1f}", f"{100 * job_rate / loop_rate:.0f} %", f"{job_cpu:.2f}", kinds),
    ]
    columns = ("", "images/s", "of the loop", "CPU ms an image", "of which")
    table = [dict(zip(columns, row, strict=True)) for row in rows]
    table[0] |= {"first shard, s": "", "largest actor, MB": ""}
    table[1] |= {"first shard, s": f"{job.first_shard_s:.1f}", "largest actor, MB": f"{job.actor_mb:.0f}"}
    return table
