"""The parts of `python jobs/performance` that measure the networks, on a CPU or a GPU."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from performance.tables import print_table, show

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Engine:
    """Image to labels: the engine against a plain implementation. CLIP ViT-B/16, DINO ViT-B/8, seeded weights."""

    device: Device = "cpu"
    """Where the networks run."""
    images: int = 3
    """Images for the engine. The plain implementation takes the first of them."""
    rounds: int = 5
    """Times that the plain implementation and the engines are measured by turns. The median counts."""
    batch_windows: int = 32
    """Windows per batch on a GPU."""

    def run(self) -> None:
        from performance.engine import measure_encoders

        show(self.device, "Image to labels, 500 x 375 pixels, 21 queries")
        print_table(measure_encoders(self.device, self.images, self.rounds, self.batch_windows))


@dataclass(frozen=True)
class Gpu:
    """On a CUDA device: the engine against a plain implementation in float16, by precision, batch and vocabulary."""

    images: int = 128
    """Images for the engine. The plain implementation takes the first of them."""
    rounds: int = 5
    """Times that the plain implementation and the engines are measured by turns. The median counts."""
    batch_windows: int = 64
    """Windows per batch of the comparison."""

    def run(self) -> None:
        from performance.gpu import measure_gpu

        show("cuda", "Image to labels, 500 x 375 pixels, CLIP ViT-B/16 with DINO ViT-B/8, seeded")
        for table in measure_gpu(self.images, self.rounds, self.batch_windows):
            print_table(table)


@dataclass(frozen=True)
class GpuJob:
    """On a CUDA device: the whole job from JPEGs, and how busy it keeps the device."""

    images: int = 6144
    """JPEGs to label."""
    actors: tuple[int, ...] = (1, 2)
    """Numbers of actors that share the device, one run each."""
    compile: bool = False
    """Compile the networks."""

    def run(self) -> None:
        from performance.gpu_job import measure_gpu_job

        show("cuda", f"The job, {self.images} JPEGs of 500 x 375 pixels, 21 classes, CLIP B/16 with DINO B/8")
        with tempfile.TemporaryDirectory() as folder:
            for table in measure_gpu_job(Path(folder), self.images, self.actors, compiled=self.compile):
                print_table(table)


@dataclass(frozen=True)
class Precisions:
    """The networks in float32, bfloat16 and int8 on this CPU: time by turns, labels, and mIoU on photographs."""

    rounds: int = 5
    """Times that the precisions are measured by turns. The median counts."""
    real: Path | None = None
    """Folder with clip-deit-tiny, vfm-deit-tiny, msrc16-dev, msrc16.json and msrc16.embeddings.safetensors. Without it
    mIoU is not measured."""

    def run(self) -> None:
        from performance.precisions import measure_photographs, measure_precisions

        show("cpu", "Image to features, 500 x 375 pixels, CLIP ViT-B/16 with DINO ViT-B/8, seeded")
        print_table(measure_precisions(self.rounds))
        if self.real is not None:
            print_table(measure_photographs(self.real))


@dataclass(frozen=True)
class Levels:
    """The engine with fewer of this processor's instructions, beside torch's own kernels: as on older processors."""

    rounds: int = 3
    """Times that each pair is measured by turns. The median counts."""

    def run(self) -> None:
        from performance.levels import measure_levels

        show("cpu", "One window of 336 pixels, float32, CLIP ViT-B/16 with DINO ViT-B/8, seeded; labels from features")
        print_table(measure_levels(self.rounds))


@dataclass(frozen=True)
class Decoding:
    """Labels from features, for growing vocabularies: the engine against a plain implementation."""

    device: Device = "cpu"
    """Where features are decoded."""

    def run(self) -> None:
        from performance.engine import measure_decoding

        show(self.device, "Labels from features, 500 x 375 pixels")
        print_table(measure_decoding(self.device))


@dataclass(frozen=True)
class Text:
    """Text embeddings of ADE20K's 150 classes: computed, and read from the cache."""

    device: Device = "cpu"
    """Where CLIP's text tower runs."""

    def run(self) -> None:
        from performance.engine import measure_text

        show(self.device, "Text embeddings of a vocabulary, 80 prompts a query")
        print_table(measure_text(self.device))
