"""Small corpora, the options to label them with, and what a job left."""

from __future__ import annotations

import dataclasses
import functools
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from safetensors.numpy import save_file

from proxyclip.dataset.masks import mask_from_png
from proxyclip.dataset.shards import read_masks
from proxyclip.pipeline.options import LabelOptions
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary

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
    """The quickest settings, for a folder of images; the output lies beside it."""
    vocabulary = folder.parent / "five.txt"
    vocabulary.write_text("\n".join(NAMES))
    small = {"preset": "demo", "short_side": 56, "crop": 56, "stride": 56, "shard_size": 32, "threads": 1}
    places = {"input": str(folder), "output": str(folder.parent / "out"), "vocabulary": str(vocabulary)}
    return LabelOptions(**{**places, **small, **changes})


def embedded(options: LabelOptions) -> LabelOptions:
    """The options with text embeddings of their vocabulary, made here: in a run, a process would load CLIP for them."""
    vocabulary = Path(str(options.vocabulary))
    return dataclasses.replace(options, embeddings=str(embeddings_of(vocabulary, vocabulary.parent)))


def embeddings_of(vocabulary: Path, folder: Path) -> Path:
    """A file in a folder with the demo's text embeddings of a vocabulary's file."""
    file = folder / f"{vocabulary.stem}.safetensors"
    save_file({"embeddings": _embed(Vocabulary.load(vocabulary).queries)}, file)
    return file


@functools.cache
def _embed(queries: tuple[str, ...]) -> np.ndarray:
    from proxyclip.models.segmenter import Segmenter  # seconds, which not every test that draws needs

    return Segmenter.from_preset("demo").embed(Vocabulary.from_names(queries)).numpy()


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


def draw_mixed(folder: Path) -> None:
    """What people keep in folders of images."""
    draw(folder, 200)
    good = next(folder.rglob("*.jpg")).read_bytes()
    for index in range(10):
        (folder / f"truncated{index}.jpg").write_bytes(good[: len(good) // 2 - index])
    for index in range(3):
        (folder / f"text{index}.jpg").write_text("not an image")
    (folder / "empty.jpg").write_bytes(b"")
    image = Image.open(next(folder.rglob("*.jpg"))).convert("RGB")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray((np.arange(64 * 80).reshape(64, 80) * 12).astype(np.uint16)).save(folder / "sixteen.png")
    image.quantize(16).save(folder / "palette.png", transparency=3)
    image.convert("L").save(folder / "gray.jpg")
    image.save(folder / "animated.gif", save_all=True, append_images=[image.rotate(90)])
    rotated = Image.Exif()
    rotated[0x0112] = 6
    image.save(folder / "rotated.jpg", exif=rotated)


def files(output: str) -> dict[str, bytes]:
    """Every file of an output, on a disk or in a store, by key."""
    storage = Storage(output)
    return {entry.key: storage.read(entry.key) for entry in storage.list()}
