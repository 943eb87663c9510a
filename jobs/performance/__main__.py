"""How fast is labelling on this machine? `python jobs/performance PART` measures one part and prints its tables."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

sys.path[0] = str(Path(__file__).resolve().parents[1])  # jobs/ instead of this folder

from performance.networks import Decoding, Device, Engine, Gpu, GpuJob, Levels, Precisions, Text  # noqa: E402
from performance.outputs import OutputPart  # noqa: E402
from performance.tables import print_table, show  # noqa: E402

Precision = Literal["float32", "bfloat16", "float16", "int8"]


@dataclass(frozen=True)
class Relabel:
    """Relabelling from stored features: against the first pass, against a plain loop, and for three vocabularies."""

    photographs: Path | None = None
    """Folder of photographs that features are made of. Without it, of drawn scenes."""
    images: int = 2560
    """Images of the corpus, which repeat a few different ones."""
    rounds: int = 3
    """Times that the first pass and relabelling are measured by turns. The median counts."""

    def run(self) -> None:
        from performance.relabel import measure_pipeline, measure_relabel

        show("cpu", "Relabelling, 500 x 375 pixels, compact features of CLIP ViT-B/16 with DINO ViT-B/8, seeded")
        with tempfile.TemporaryDirectory() as folder:
            print_table(measure_relabel(Path(folder, "cpu"), self.rounds, self.photographs))
            print_table(measure_pipeline(Path(folder, "pipeline"), self.images, self.photographs))


@dataclass(frozen=True)
class Adapt:
    """A head from collected statistics, for corpora of growing size: time and memory."""

    images: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    """Sizes of the corpora."""

    def run(self) -> None:
        from performance.adapt import measure_adapt

        show("cpu", "A head from collected statistics, 21 classes, features of width 512, 256 images a shard")
        with tempfile.TemporaryDirectory() as folder:
            print_table(list(measure_adapt(Path(folder), self.images)))


@dataclass(frozen=True)
class Pipeline:
    """The whole job with the demo's small networks against a plain loop, one thread each."""

    images: int = 500
    """JPEGs to label."""

    def run(self) -> None:
        from performance.pipeline import measure_pipeline, small_job

        show("cpu", f"Pipeline, {self.images} JPEGs of 500 x 375 pixels, demo networks")
        with _jpegs(self.images) as folder:
            print_table(measure_pipeline(small_job(folder / "images", folder / "labels")))


@dataclass(frozen=True)
class Scaling:
    """The pipeline with growing numbers of actors, whose networks are replaced by waiting."""

    actors: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of actors, one run each."""
    ms_per_image: tuple[float, ...] = (20, 3)
    """Times that a replaced network waits for an image."""
    images: int = 500
    """Different JPEGs. They are labelled again and again."""
    run_s: float = 80
    """Length of a run, in seconds."""

    def run(self) -> None:
        from performance.scaling import measure_scaling

        show(None, "Scaling, JPEGs of 500 x 375 pixels, networks replaced")
        with _jpegs(self.images) as folder:
            images = str(folder / "images")
            times = [ms / 1000 for ms in self.ms_per_image]
            print_table([row for each in times for row in measure_scaling(images, each, self.actors, self.run_s)])


@dataclass(frozen=True)
class Quality:
    """What each --quality costs with networks of full size and, on labelled photographs, how the labels change."""

    real: Path | None = None
    """Folder with clip-deit-tiny, vfm-deit-tiny, msrc16-dev, msrc16.json and msrc16.embeddings.safetensors. Without it
    only the cost is measured."""
    device: Device = "cpu"
    """Where the networks run."""
    dtype: Precision = "bfloat16"
    """Precision of the networks whose cost is measured."""

    def run(self) -> None:
        from performance.quality import measure_agreement, measure_costs

        show(self.device, f"CLIP ViT-B/16 with DINO ViT-B/8, seeded, {self.dtype}, 500 x 375 pixels")
        print_table(measure_costs(self.device, self.dtype))
        if self.real is not None:
            print("DeiT-Tiny for both networks, float32, msrc16\n")
            print_table(measure_agreement(self.real))


@dataclass(frozen=True)
class Features:
    """What each codec of stored features costs and, on labelled photographs, how it changes the labels."""

    real: Path | None = None
    """Folder as for `quality`. Without it only the cost is measured, on a drawn scene."""
    every: int = 1
    """Take one of so many labelled photographs."""
    device: Device = "cpu"
    """Where the networks run whose time is measured; codecs run on the CPU."""
    rounds: int = 3
    """Times that networks and codecs are measured. The median counts."""

    def run(self) -> None:
        from performance.features import measure_codecs, measure_encoding

        show(self.device, "CLIP ViT-B/16 with DINO ViT-B/8, seeded, bfloat16, one image of 500 x 375 pixels")
        print_table(measure_encoding(self.real, self.device, self.rounds))
        if self.real is not None:
            print(
                "DeiT-Tiny for both networks, float32, msrc16. Labels are compared with those of the features that\n"
                "were not encoded (codec none: float32): with the 263 queries of msrc16, which make 16 classes,\n"
                "and with queries drawn from them, one a class; beyond 263, each is a random mixture of two.\n"
            )
            print_table(measure_codecs(self.real, self.every))


@dataclass(frozen=True)
class Resume:
    """A very large run that stopped: what resuming it costs, step by step, in new processes."""

    shards: int = 1_000_000
    """Shards in the plan."""
    committed: int = 999_000
    """Shards that are done: the first ones, in whole segments, the rest as loose commits."""
    images_per_shard: int = 3
    """Images per shard."""
    listing: bool = True
    """Measure also how the plan is extended by a listing without new images."""
    folder: Path | None = None
    """Where to write the simulated run; by default a temporary folder. A folder that holds one is used as it is."""

    def run(self) -> None:
        from performance.resume import LargeRun, measure_resume

        show(None, f"{self.shards:,} shards, {self.committed:,} of them committed")
        run = LargeRun(self.shards, self.committed, self.images_per_shard)
        print_table(measure_resume(run, with_listing=self.listing, folder=self.folder))


@dataclass(frozen=True)
class Startup:
    """Seconds until --help, a refusal, the end of a finished run, and the first shard of a run."""

    checkout: Path | None = None
    """Folder of another version of this project, measured by turns with this one."""
    rounds: int = 5
    """Times that each command runs."""

    def run(self) -> None:
        from performance.startup import measure_startup

        checkout = self.checkout and _existing(self.checkout)
        show(None, "Start-up, whole processes: min / median / max")
        print_table(measure_startup(checkout, self.rounds))


@dataclass(frozen=True)
class Plan:
    """Planning a corpus: seconds and memory from a listing and from tables of URIs. Images are only names."""

    images: int = 10_000_000
    """Names of images."""
    before: bool = True
    """Measure also the planning of a listing that is held in memory, which needs about 800 bytes an image."""
    folder: Path | None = None
    """Where tables and plans are written for a while. Without it, in a temporary folder."""

    def run(self) -> None:
        from performance.plan import measure_plan

        show(None, f"A plan of {self.images:,} images")
        print_table(measure_plan(self.images, before=self.before, folder=self.folder))


@dataclass(frozen=True)
class Compare:
    """This version of the project and another one by turns: engine, decoding and pipeline."""

    checkout: Path
    """Folder of the other version."""
    device: Device = "cpu"
    """Where the networks run."""
    dtypes: tuple[Precision, ...] = ("float32", "bfloat16")
    """Precisions of the engine."""
    rounds: int = 5
    """Times that both versions start anew."""
    repeats: int = 3
    """Times that each piece of work is measured in a round. The median of all rounds counts."""
    images: int = 300
    """JPEGs that the pipeline labels in a round; 0 leaves the pipeline out."""

    def run(self) -> None:
        from performance.compare import compare_engines, compare_pipelines

        checkout = _existing(self.checkout)
        show(self.device, "This version and another by turns, medians")
        rows = compare_engines(checkout, self.device, self.dtypes, self.rounds, self.repeats)
        if self.images:
            with _jpegs(self.images) as folder:
                rows += compare_pipelines(checkout, folder, self.rounds)
        print_table(rows)


Part = (
    Engine
    | Gpu
    | GpuJob
    | Precisions
    | Levels
    | Decoding
    | Relabel
    | Adapt
    | Text
    | Pipeline
    | Scaling
    | Quality
    | Features
    | Resume
    | Plan
    | Startup
    | Compare
    | OutputPart
)


def _existing(checkout: Path) -> Path:
    if not (checkout / "jobs" / "label.py").exists():
        sys.exit(f"error: --checkout {checkout} has no jobs/label.py; give the folder of a version of this project.")
    return checkout.resolve()


@contextmanager
def _jpegs(count: int) -> Iterator[Path]:
    """A temporary folder with drawn scenes in its folder `images`."""
    from performance.seeded import write_jpegs

    with tempfile.TemporaryDirectory() as folder:
        write_jpegs(Path(folder) / "images", count)
        yield Path(folder)


if __name__ == "__main__":
    tyro.cli(Part, prog="python jobs/performance", description=__doc__).run()
