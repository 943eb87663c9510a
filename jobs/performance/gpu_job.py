"""The whole job on a CUDA device, from JPEGs on a disk: how busy it keeps the device, and at what rate."""

from __future__ import annotations

import statistics
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from PIL import Image

from performance.gpu import Case, decoded_masks, seconds
from performance.pipeline import in_a_process, time_job
from performance.seeded import drawn_images, seeded_clip, seeded_proxy
from performance.tables import Row
from proxyclip.config import ModelConfig, SegmenterConfig
from proxyclip.models.segmenter import Segmenter
from proxyclip.pipeline.options import LabelOptions

_SAMPLE_S = 0.5


def measure_gpu_job(folder: Path, num_images: int) -> list[Row]:
    """The engine alone, then the job with one and with two actors on the device."""
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
    )
    rows = []
    for compiled in (False, True):
        alone = in_a_process(engine_rate, compiled)
        rows.append(_row("engine alone" + (", compiled" if compiled else ""), alone, alone, "", ""))
        for actors in (1, 2):
            name = f"job, {actors} actor{'s' if actors > 1 else ''}" + (", compiled" if compiled else "")
            job = replace(
                options, output=f"{options.output}-{actors}{compiled}", concurrency=actors, num_gpus=1 / actors,
                compile=compiled, threads=14 // actors,
            )  # fmt: skip
            with busy() as shares:
                times = time_job(job)
            found = shares.at_work()
            rows.append(_row(name, times.images / times.seconds, alone, found, f"{times.first_shard_s:.1f}"))
    return rows


def _row(name: str, rate: float, alone: float, busy: str, first: str) -> Row:
    share = f"{100 * rate / alone:.0f} %"
    return {"": name, "images/s": f"{rate:.0f}", "of the engine": share, "GPU busy": busy, "first shard, s": first}


def write_corpus(folder: Path, num_images: int) -> None:
    """JPEGs of 500 x 375 pixels, 16 different ones repeated, and the weights of both networks."""
    images = folder / "images"
    images.mkdir(parents=True)
    for number, drawn in enumerate(drawn_images(16)):
        Image.fromarray(drawn).save(images / f"{number:06d}.jpg", quality=90)
    for number in range(16, num_images):
        (images / f"{number:06d}.jpg").write_bytes((images / f"{number % 16:06d}.jpg").read_bytes())
    torch.save(seeded_clip().model.state_dict(), folder / "clip.pt")
    torch.save(seeded_proxy().model.state_dict(), folder / "proxy.pt")


def engine_rate(compiled: bool) -> float:
    """Images a second of the engine alone, pixels in memory to labels in memory."""
    case = Case(128)
    config = SegmenterConfig(ModelConfig(dtype="bfloat16"))
    networks = seeded_clip(), seeded_proxy()
    engine = Segmenter(*networks, config, device="cuda", batch_windows=64, compiled=compiled)

    def work() -> None:
        decoded_masks(engine, engine.encode_batch(case.images), case.vocabularies[21])

    work()
    return len(case.images) / statistics.median(seconds(work) for _ in range(7))


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
