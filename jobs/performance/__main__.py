"""How fast labelling is here: `python jobs/benchmark.py`. The tables are those of BENCHMARKS.md."""

from __future__ import annotations

import datetime
import os
import sys
import tempfile
from pathlib import Path
from typing import Literal, get_args

import torch
import tyro
from PIL import Image

from performance.engine import EngineOptions, Row, benchmark_decoding, benchmark_encoders, benchmark_text
from performance.seeded import drawn_images
from proxyclip.config import LabelOptions

Part = Literal["engine", "decoding", "text", "pipeline", "scaling"]
DEMO = Path(__file__).parents[1] / "proxyclip" / "demo"


def markdown(rows: list[Row]) -> str:
    """Rows with the same columns as a table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def heading(device: str) -> str:
    """Where and how a benchmark was run."""
    machine = f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads"
    if device == "cuda":
        machine = f"{torch.cuda.get_device_name()}, {machine}"
    return f"{machine}, torch {torch.__version__}, {datetime.date.today()}: python {' '.join(sys.argv)}\n"


def pipeline(images: Path, output: Path) -> list[Row]:
    """The job with the demo's networks on two small windows against a plain loop, one thread each."""
    from performance.throughput import benchmark_pipeline

    vocabulary = str(DEMO / "vocabulary.json")
    return benchmark_pipeline(
        LabelOptions(
            *(str(images), str(output), vocabulary),
            preset="demo",
            short_side=112,
            crop=112,
            stride=112,
            shard_size=25,
            threads=1,
        ),
        Path(__file__).with_name("label.py"),
    )


def scaling(images: Path, actors: tuple[int, ...]) -> list[Row]:
    """Stand-ins that take 20 ms and 3 ms an image."""
    from performance.scaling import benchmark_scaling

    return [row for seconds in (0.02, 0.003) for row in benchmark_scaling(str(images), seconds, actors)]


def main(
    options: EngineOptions,
    parts: tuple[Part, ...] = get_args(Part),
    pipeline_images: int = 500,
    actors: tuple[int, ...] = (1, 2, 4, 8),
) -> None:
    """Measure the parts of labelling. The engine's need no Ray, and are all that --device cuda changes.

    parts: tables to make. pipeline_images: JPEGs that the pipeline labels. actors: how many stand-ins, run by run.
    """
    print(heading(options.device))
    if "engine" in parts:
        print(f"Image to labels, 500 x 375 pixels, 21 queries\n\n{markdown(benchmark_encoders(options))}\n")
    if "decoding" in parts:
        print(f"Labels from features, 500 x 375 pixels\n\n{markdown(benchmark_decoding(options))}\n")
    if "text" in parts:
        print(f"Text embeddings of a vocabulary, 80 prompts a query\n\n{markdown(benchmark_text(options))}\n")
    if {"pipeline", "scaling"} & set(parts):
        with tempfile.TemporaryDirectory() as folder:
            images = Path(folder) / "images"
            images.mkdir()
            for index, image in enumerate(drawn_images(pipeline_images)):
                Image.fromarray(image).save(images / f"{index:05d}.jpg", quality=90)
            if "pipeline" in parts:
                table = markdown(pipeline(images, Path(folder) / "labels"))
                print(f"Pipeline, {pipeline_images} JPEGs of 500 x 375 pixels, demo networks\n\n{table}\n")
            if "scaling" in parts:
                print(f"Scaling, JPEGs of 500 x 375 pixels, networks replaced\n\n{markdown(scaling(images, actors))}")


if __name__ == "__main__":
    tyro.cli(main, config=(tyro.conf.OmitArgPrefixes,))
