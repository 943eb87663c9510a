"""The whole job on a CUDA device, from JPEGs on a disk: how busy it keeps the device, and at what rate."""

from __future__ import annotations

import os
import statistics
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image

from performance.gpu import decoded_masks, seconds, segmenter
from performance.pipeline import in_a_process, time_job
from performance.seeded import drawn_images, seeded_clip, seeded_proxy, seeded_vocabulary
from performance.tables import Row
from proxyclip.pipeline.options import LabelOptions

_SAMPLE_S = 0.5


def measure_gpu_job(folder: Path, num_images: int, actors: tuple[int, ...], *, compiled: bool) -> Iterator[list[Row]]:
    """The engine alone, then the job with several numbers of actors on the device; one table each."""
    in_a_process(write_corpus, folder, num_images)
    vocabulary = folder / "vocabulary.txt"
    vocabulary.write_text("".join(f"class {number}\n" for number in range(21)))
    options = LabelOptions(
        *(str(folder / "images"), str(folder / "labels"), str(vocabulary)),
        preset="proxyclip-b16-dino-b8",
        clip_weights=str(folder / "clip.pt"),
        proxy_weights=str(folder / "proxy.pt"),
        dtype="bfloat16",
        batch_windows=64,
        compile=compiled,
    )
    alone = in_a_process(engine_rate, compiled)
    yield [_row("engine alone", alone, alone, "", "")]
    for number in actors:
        job = replace(
            options,
            output=f"{options.output}-{number}",
            concurrency=number,
            num_gpus=1 / number,
            threads=max((os.cpu_count() or 1) // number, 1),
        )
        with busy() as shares:
            times = time_job(job)
        rate, first = times.images / times.seconds, f"{times.first_shard_s:.1f}"
        yield [_row(f"job, actors: {number}", rate, alone, shares.at_work(), first)]


def _row(name: str, rate: float, alone: float, busy: str, first: str) -> Row:
    share = f"{100 * rate / alone:.0f} %"
    return {"": name, "images/s": f"{rate:.0f}", "of the engine": share, "GPU busy": busy, "first shard, s": first}


def write_corpus(folder: Path, num_images: int) -> None:
    """JPEGs of 500 x 375 pixels, 8 different ones repeated, and the weights of both networks."""
    images = folder / "images"
    images.mkdir(parents=True)
    for number, drawn in enumerate(drawn_images(8)):
        Image.fromarray(drawn).save(images / f"{number:06d}.jpg", quality=90)
    for number in range(8, num_images):
        (images / f"{number:06d}.jpg").write_bytes((images / f"{number % 8:06d}.jpg").read_bytes())
    torch.save(seeded_clip().model.state_dict(), folder / "clip.pt")
    torch.save(seeded_proxy().model.state_dict(), folder / "proxy.pt")


def engine_rate(compiled: bool) -> float:
    """Images a second of the engine alone, pixels in memory to labels in memory."""
    images = drawn_images(8) * 16
    engine = segmenter("bfloat16", 64, compiled=compiled)
    vocabulary = seeded_vocabulary(engine.encode(images[0]).features, 21)

    def work() -> None:
        decoded_masks(engine, engine.encode_batch(images), vocabulary)

    work()
    return len(images) / statistics.median(seconds(work) for _ in range(7))


@dataclass
class Shares:
    """Samples of the share of time in which the device computed, in percent."""

    samples: list[int] = field(default_factory=list)

    def at_work(self) -> str:
        """The mean between the first and the last sample that shows work, without one sample at each end."""
        found = [index for index, share in enumerate(self.samples) if share > 50]
        inner = self.samples[found[0] + 1 : found[-1]] if found else []
        return f"{statistics.mean(inner):.0f} %" if inner else "not seen"


@contextmanager
def busy() -> Iterator[Shares]:
    """Sample the device's utilisation beside the block."""
    shares, ended = Shares(), threading.Event()
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]

    def sample() -> None:
        while not ended.wait(_SAMPLE_S):
            shares.samples.append(int(subprocess.check_output(command, text=True).split()[0]))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield shares
    finally:
        ended.set()
        thread.join()
