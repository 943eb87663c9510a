"""Small corpora, the options to label them with, and what a job left."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from proxyclip.dataset.masks import mask_from_png
from proxyclip.dataset.shards import read_masks
from proxyclip.pipeline.options import LabelOptions
from proxyclip.storage.store import Storage

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["sky", "grass", "tree", "water", "stone"]


def draw(folder: Path, count: int, first: int = 0) -> None:
    """Small photographs of soft colours, of several sizes, some in a subfolder."""
    for index in range(first, first + count):
        rng = np.random.default_rng(index)
        small = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        size = (60 + 7 * (index % 5), 60 + 11 * (index % 3))
        path = folder / ("more" if index % 4 == 0 else "") / f"image {index:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)


def command(options: LabelOptions) -> list[str]:
    """The options as a user types them."""
    words = [sys.executable, str(ROOT / "jobs" / "label.py")]
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value != field.default:
            words += [f"--{field.name.replace('_', '-')}", str(value)]
    return words


def small_options(folder: Path, **changes: object) -> LabelOptions:
    vocabulary = folder.parent / "five.txt"
    vocabulary.write_text("sky\ngrass\ntree\nwater\nstone")
    chosen = {"vocabulary": str(vocabulary), "shard_size": 32, "threads": 1, **changes}
    small = {"short_side": 56, "crop": 56, "stride": 56}
    return LabelOptions(input=str(folder), output=str(folder.parent / "out"), preset="demo", **small, **chosen)


def failures_of(output: str) -> dict[str, dict[str, str]]:
    files = sorted((Path(output) / "failures").glob("*.parquet"))
    return {row["uri"]: row for path in files for row in pq.read_table(path).to_pylist()}


def data_files(output: str | Path) -> dict[str, bytes]:
    """All that a run must write the same way every time, by name; not what a killed writer had not finished."""
    root = Path(output)
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and path.parts[len(root.parts)] not in ("plan", "run.json")
        and not path.name.startswith(".proxyclip-tmp-")
    }


def labels(output: str | Path) -> dict[str, np.ndarray]:
    return {row.uri: mask_from_png(row.mask) for row in read_masks(Storage(str(output)))}
