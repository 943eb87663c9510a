"""Mutated image files, from a seed: whatever the bytes, an image is decoded or fails, and nothing else happens."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from labelling import failures_of, labels
from labelling import small_options as options
from PIL import Image

from proxyclip.config import WindowConfig
from proxyclip.demo.scenes import draw_scene
from proxyclip.images.errors import ImageError
from proxyclip.images.readers import ReaderPool
from proxyclip.images.reading import MAX_PIXELS, MAX_SIDE, read_pixels
from proxyclip.images.sizes import ResizedImage, resized_hw
from proxyclip.pipeline.cluster.join import cluster
from proxyclip.pipeline.run import label

SEED = 20_261_121
WINDOWS = WindowConfig(short_side=24, long_side=256, fast_decode=True)
SUFFIX = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "TIFF": "tif", "BMP": "bmp", "GIF": "gif"}


@cache
def originals() -> tuple[tuple[str, bytes], ...]:
    """(suffix, bytes) of a drawn scene in every format, with the modes and options that each has."""
    scene = Image.fromarray(draw_scene(3_000_000, (72, 96)).image)
    gray = np.asarray(scene.convert("L")).astype(np.uint16) * 257
    alpha = scene.convert("RGBA")
    alpha.putalpha(scene.convert("L"))
    palette = scene.quantize(32)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x8298] = 6, "a scene", "nobody" * 20
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>" * 10
    made = [
        ("JPEG", scene, {}),
        ("JPEG", scene, {"progressive": True, "quality": 60}),
        ("JPEG", scene, {"exif": exif, "comment": b"hello" * 30, "icc_profile": bytes(range(256)) * 4}),
        ("JPEG", scene.convert("CMYK"), {}),
        ("JPEG", scene.convert("L"), {"restart_marker_rows": 1, "optimize": True}),
        ("PNG", scene, {"exif": exif}),
        ("PNG", alpha, {"dpi": (72, 72)}),
        ("PNG", palette, {"transparency": 3, "bits": 8}),
        ("PNG", scene.convert("1"), {}),
        ("PNG", Image.fromarray(gray), {}),
        ("PNG", scene, {"save_all": True, "append_images": [scene.rotate(90), scene.rotate(180)]}),
        ("WEBP", scene, {"quality": 70, "exif": exif, "xmp": xmp}),
        ("WEBP", alpha, {"lossless": True}),
        ("WEBP", scene, {"save_all": True, "append_images": [scene.rotate(90)]}),
        ("TIFF", scene, {}),
        ("TIFF", scene, {"compression": "tiff_lzw", "exif": exif}),
        ("TIFF", scene, {"compression": "jpeg"}),
        ("TIFF", scene, {"compression": "tiff_adobe_deflate", "tiffinfo": {278: 8}}),
        ("TIFF", scene.convert("1"), {"compression": "group4"}),
        ("TIFF", scene.convert("1"), {"compression": "group3"}),
        ("TIFF", Image.fromarray(gray), {"compression": "packbits"}),
        ("TIFF", Image.fromarray(gray.astype(np.float32)), {}),
        ("TIFF", scene.convert("CMYK"), {"big_tiff": True}),
        ("BMP", scene, {}),
        ("BMP", palette, {}),
        ("BMP", scene.convert("1"), {}),
        ("GIF", palette, {"transparency": 2}),
        ("GIF", palette, {"save_all": True, "append_images": [palette.rotate(90)], "interlace": 1}),
    ]
    files = []
    for fmt, image, chosen in made:
        buffer = io.BytesIO()
        image.save(buffer, fmt, **chosen)
        files.append((SUFFIX[fmt], buffer.getvalue()))
    return tuple(files)


def flip_bits(rng: np.random.Generator, data: bytearray) -> None:
    for where in rng.integers(0, len(data), rng.integers(1, 20)):
        data[where] ^= 1 << int(rng.integers(8))


def edit_head(rng: np.random.Generator, data: bytearray) -> None:
    """Where sizes, offsets and counts stand."""
    for where in rng.integers(2, min(len(data), 200), rng.integers(1, 6)):
        data[where] = int(rng.choice([0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF, rng.integers(256)]))


def put_extreme(rng: np.random.Generator, data: bytearray) -> None:
    """A number at the edge of its type, at any aligned place."""
    for _ in range(rng.integers(1, 4)):
        where = int(rng.integers(0, max(len(data) // 2, 1))) * 2
        value = int(rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]))
        size = 4 if value > 0xFFFF else int(rng.choice([2, 4]))
        data[where : where + size] = value.to_bytes(size, "little" if rng.random() < 0.5 else "big")


def truncate(rng: np.random.Generator, data: bytearray) -> None:
    del data[int(rng.integers(0, len(data))) :]


def drop(rng: np.random.Generator, data: bytearray) -> None:
    start = int(rng.integers(0, len(data)))
    del data[start : start + int(rng.integers(1, 200))]


def repeat(rng: np.random.Generator, data: bytearray) -> None:
    start = int(rng.integers(0, len(data)))
    part = data[start : start + int(rng.integers(1, 400))]
    data[start:start] = part * int(rng.integers(1, 30))


def splice(rng: np.random.Generator, data: bytearray) -> None:
    """The start of one file and the rest of another, of any format."""
    other = originals()[rng.integers(len(originals()))][1]
    data[int(rng.integers(4, len(data))) :] = other[int(rng.integers(0, len(other))) :]


def fill(rng: np.random.Generator, data: bytearray) -> None:
    start, count = int(rng.integers(8, max(len(data), 9))), int(rng.integers(1, 300))
    data[start : start + count] = rng.bytes(count) if rng.random() < 0.5 else bytes([int(rng.integers(256))]) * count


MUTATIONS: tuple[Callable[[np.random.Generator, bytearray], None], ...] = (
    *(flip_bits, edit_head, put_extreme, truncate, drop, repeat, splice, fill),
)


def mutated(index: int) -> tuple[str, bytes]:
    """The suffix and bytes of a mutated file; the same for the same index."""
    rng = np.random.default_rng((SEED, index))
    suffix, data = originals()[index % len(originals())]
    changed = bytearray(data)
    for mutate in rng.choice(np.array(MUTATIONS), rng.choice([1, 1, 2, 3])):
        if len(changed) > 16:
            mutate(rng, changed)
    return suffix, bytes(changed)


def saved(tmp_path: Path, index: int) -> Path:
    suffix, data = mutated(index)
    path = tmp_path / f"mutation {index}.{suffix}"
    path.write_bytes(data)
    return path


def outcome(pool: ReaderPool, data: bytes) -> tuple[str, str] | ResizedImage:
    try:
        return pool.read(data)
    except ImageError as error:
        return (error.status, error.reason)


def test_the_unchanged_files_are_images():
    for _, data in originals():
        assert sorted(read_pixels(data).shape) == [3, 72, 96]


@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_files_are_decoded_or_fail_the_same_way_each_time(tmp_path, count):
    print(f"seed {SEED}, {count} mutations of {len(originals())} files")
    seen: dict[str, int] = {}
    pool = ReaderPool(2, WINDOWS, timeout_s=60)

    def file(index: int) -> str:
        return f"{saved(tmp_path, index)}, seed {SEED}"

    with ThreadPoolExecutor(2) as threads:
        outcomes = threads.map(lambda index: outcome(pool, mutated(index)[1]), range(count))
        for index, found in enumerate(outcomes):
            if isinstance(found, ResizedImage):
                seen["decoded"] = seen.get("decoded", 0) + 1
                height, width = found.original_hw
                assert 1 <= min(height, width) <= max(height, width) <= MAX_SIDE, file(index)
                assert height * width <= MAX_PIXELS, file(index)
                assert found.pixels.dtype == np.uint8, file(index)
                assert found.pixels.shape == (*resized_hw((height, width), WINDOWS), 3), file(index)
                continue
            status, reason = found
            seen[status] = seen.get(status, 0) + 1
            assert status in ("empty", "decode_failed", "too_large"), f"{found}: {file(index)}"
            assert reason, file(index)
            assert "0x" not in reason, f"{found}: {file(index)}"
            if index % 10 == 0:
                assert outcome(pool, mutated(index)[1]) == found, file(index)
    pool.close()
    print(json.dumps(seen))
    assert seen["decoded"] > count // 10  # or it shows little
    assert seen["decode_failed"] > count // 10


@pytest.mark.slow  # pipeline/test_bad_images.py runs a job over files that are no images
@pytest.mark.parametrize("count", [140, 1500])
def test_a_job_over_mutated_files_labels_or_fails_each(tmp_path, count):
    folder = tmp_path / "images"
    folder.mkdir()
    names = {saved(folder, index).name for index in range(count)}
    with cluster("local", verbose=False):
        chosen = options(folder, shard_size=50)
        summary = label(chosen)
    masks, failures = labels(chosen.output), failures_of(chosen.output)
    assert summary.finished, f"seed {SEED}: {summary.shard_errors}, files in {folder}"
    assert not masks.keys() & failures.keys()
    assert masks.keys() | failures.keys() == names, f"seed {SEED}, files in {folder}"
    assert len(masks) > count // 10
    assert len(failures) > count // 10
