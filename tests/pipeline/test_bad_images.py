"""What lies in folders of images and is none, or has an odd name or size: one job over all of it."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from encoded import encoded, faulty_environment, jpeg, jpeg_of_size, png, png_header, tiff, webp_lossless, with_size
from labelling import embedded, failures_of, labels, small_options
from PIL import Image

from proxyclip.dataset.masks import mask_from_png
from proxyclip.dataset.shards import read_masks
from proxyclip.images.errors import ImageError
from proxyclip.images.listing import list_images
from proxyclip.images.reading import MAX_PIXELS, MAX_SIDE, read_pixels
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.run import label
from proxyclip.storage.store import Storage

pytestmark = pytest.mark.usefixtures("one_cluster")

ROOT = Path(__file__).resolve().parents[2]


# Small files that would fill gigabytes, and what is said of them.
BOMBS = {
    "png of nothing.png": png(60_000, 60_000, zlib.compress(bytes(60_001 * 1000))),
    "png by its head.png": png_header(100_000, 100_000) + bytes(4) + b"IDAT",
    "gif.gif": with_size(encoded("GIF"), 6, "<HH", 65_535, 65_535),
    "webp.webp": webp_lossless(16_383, 16_383),
    "tiff.tif": tiff(2**31 - 1, 2**31 - 1),
    "tiff of 4 gigapixels.tif": tiff(65_535, 65_535),
    "bmp.bmp": with_size(encoded("BMP"), 18, "<ii", 50_000, 50_000),
    "jpeg.jpg": jpeg_of_size(65_500, 65_500),
    "a side too long.png": png(MAX_SIDE + 1, 1, zlib.compress(bytes(MAX_SIDE + 2))),
}
WITHOUT_SIZE = {
    "zero.png": png(0, 0, zlib.compress(b"")),
    "zero high.png": png(40, 0, zlib.compress(b"")),
    "zero.gif": with_size(encoded("GIF")[:13], 6, "<HH", 0, 0) + b";",
    "zero.bmp": with_size(encoded("BMP"), 18, "<ii", 0, 0),
    "zero.jpg": jpeg_of_size(0, 0),
    "zero wide.jpg": jpeg_of_size(0, 30),
    "zero.tif": tiff(0, 0),
}
NO_IMAGE = {
    "notes.png": b"a text, whatever its name\n",
    "page.jpg": b"<!doctype html><title>404</title>",
    "archive.webp": b"PK\x03\x04" + bytes(100),
    "empty.jpg": b"",
    "zeros.png": bytes(10_000),
}
LONG = {
    "65535 wide.png": png(65_535, 1, zlib.compress(bytes(65_536))),
    "65535 high.png": png(1, 65_535, zlib.compress(bytes(2 * 65_535))),
    "65500 wide.jpg": encoded("JPEG", (65_500, 8)),
}
NAMES = {
    **{f"{name}.jpg": jpeg(seed=seed) for seed, name in enumerate(("Case", "case", "CASE"))},
    **{
        name: jpeg(seed=seed)
        for seed, name in enumerate(
            (
                *("two  spaces .jpg", " leading.jpg", "-rf.jpg", "tab\there.jpg", "new\nline.jpg", "\r\n.jpg"),
                *("100%.jpg", "a%20b.jpg", "a b.jpg", "%2e%2e%2fup.jpg", "a#b.jpg", "a?b.jpg", "a?b=c&d.jpg"),
                *("caf\u00e9.jpg", "cafe\u0301.jpg", "\U0001f40e.jpg", "\u202egpj.jpg", "\u5716\u50cf.jpg"),
                *("[a-z]*.jpg", "{x}.jpg", "'quoted'.jpg", '"quoted".jpg', "back\\slash.jpg", "$(true).jpg", "~.jpg"),
                *(
                    "a:b.jpg",
                    "s3:__x.jpg",
                    "..jpg.jpg",
                    "a..b.jpg",
                    "x" * 240 + ".jpg",
                    "a.JPG",
                    "\x01.jpg",
                    "\x7f.jpg",
                ),
            )
        )
        if not name.startswith(".")
    },
}
WRONG_EXTENSION = {
    "png.jpg": encoded("PNG"),
    "jpeg.png": encoded("JPEG"),
    "gif.tiff": encoded("GIF"),
    "webp.bmp": encoded("WEBP"),
}
FOLDERS = {"x.jpg/inside.jpg": jpeg(), "y.png/z.png/deep.jpg": jpeg()}
GOOD = {**LONG, **NAMES, **WRONG_EXTENSION, **FOLDERS}
BAD = {**BOMBS, **WITHOUT_SIZE, **NO_IMAGE}


def options(folder, **changes):
    return embedded(small_options(folder, **changes))


@pytest.fixture(scope="module")
def job(one_cluster, tmp_path_factory):
    """The folder, its masks and its failures."""
    folder = tmp_path_factory.mktemp("bad") / "images"
    for name, data in {**GOOD, **BAD}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if len({path.name for path in folder.iterdir()}) < len(GOOD) + len(BAD) - 1:
        pytest.skip("this file system does not tell upper case from lower")
    (folder / "nothing.jpg").mkdir()
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "again").symlink_to(folder)
    (folder / "mutual").symlink_to(folder / "lautum")
    (folder / "lautum").symlink_to(folder / "mutual")
    os.mkfifo(folder / "fifo.jpg")
    chosen = options(folder)
    summary = label(chosen)
    masks, failures = labels(chosen.output), failures_of(chosen.output)
    assert (summary.labelled, summary.failed, summary.exit_code) == (len(masks), len(failures), 3)
    assert not masks.keys() & failures.keys()
    return folder, masks, failures


def test_every_image_ends_as_a_mask_or_a_failure(job):
    _, masks, failures = job
    assert sorted([*masks, *failures]) == sorted([*GOOD, *BAD, "loop.jpg"])


@pytest.mark.parametrize("name", GOOD)
def test_whatever_its_name_or_shape_an_image_is_labelled(job, name):
    folder, masks, _ = job
    with Image.open(folder / name) as image:
        assert masks[name].shape == (image.height, image.width)


def test_names_that_are_nearly_the_same_stay_apart(job):
    folder, masks, _ = job
    for names in (("Case.jpg", "case.jpg", "CASE.jpg"), ("a%20b.jpg", "a b.jpg"), ("caf\u00e9.jpg", "cafe\u0301.jpg")):
        pixels = [read_pixels((folder / name).read_bytes()) for name in names]
        assert len({each.tobytes() for each in pixels}) == len({masks[name].tobytes() for name in names}) == len(names)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_too_large(job, name):
    failure = job[2][name]
    assert (failure["stage"], failure["status"]) == ("decode", "too_large")
    assert "pixels" in failure["reason"]


@pytest.mark.parametrize("name", [*WITHOUT_SIZE, *NO_IMAGE])
def test_what_is_no_image_says_so(job, name):
    failure = job[2][name]
    assert (failure["stage"], failure["status"]) == ("decode", "empty" if name == "empty.jpg" else "decode_failed")
    assert failure["reason"]


def test_links_that_lead_to_themselves_are_failures_or_nothing(job):
    failure = job[2]["loop.jpg"]
    assert (failure["stage"], failure["status"]) == ("fetch", "fetch_failed")
    assert not [name for name in {**job[1], **job[2]} if name.startswith(("again/", "mutual", "lautum"))]


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_before_it_goes_off(name):
    """In little memory: more than half of the limit on pixels would not fit."""
    code = """if True:
        import resource, sys
        from proxyclip.images.errors import ImageError
        from proxyclip.images.reading import read_pixels
        resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
        try:
            read_pixels(sys.stdin.buffer.read())
        except ImageError as error:
            print(error.status)
    """
    limit = str(MAX_PIXELS * 3)
    if name == "webp.webp":
        limit = str(2**32)  # libwebp reserves two canvases before it tells their size
    run = subprocess.run(
        [sys.executable, "-c", code, limit],
        input=BOMBS[name],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
    )
    assert run.stdout == b"too_large\n", run.stderr.decode()


def test_images_that_crash_or_hang_their_decoder_cost_only_themselves(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for seed in range(20):
        (folder / f"{seed}.jpg").write_bytes(jpeg(seed=seed))
    wanted = {}
    for fault, status in (
        ("segfault", "decoder_crashed"),
        ("abort", "decoder_crashed"),
        ("spin", "timed_out"),
        ("memory", "decode_failed"),
    ):
        (folder / f"{fault}.jpg").write_bytes(jpeg(fault))
        wanted[f"{fault}.jpg"] = ("decode", status)
    chosen = options(folder, shard_size=6, image_timeout_s=10.0)
    flags = [
        f"--{name.replace('_', '-')}={value}"
        for name, value in vars(chosen).items()
        if value != LabelOptions.__dataclass_fields__[name].default
    ]
    run = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "label.py"), *flags],
        env=os.environ | faulty_environment(tmp_path / "faulty"),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 3, run.stderr
    assert "20 of 24 images labelled, 4 failed" in run.stdout
    found = failures_of(chosen.output)
    assert {uri: (row["stage"], row["status"]) for uri, row in found.items()} == wanted
    assert found["segfault.jpg"]["reason"] == found["abort.jpg"]["reason"]
    assert set(labels(chosen.output)) == {f"{seed}.jpg" for seed in range(20)}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read_is_a_failure(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(jpeg())
    (folder / "a.jpg").chmod(0)
    chosen = options(folder)
    assert label(chosen).labelled == 1
    assert failures_of(chosen.output)["a.jpg"]["reason"] == "Permission denied"


@pytest.mark.parametrize("count", [2000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_empty_files_all_end_in_failures(tmp_path, count):
    folder = tmp_path / "images"
    for index in range(count):
        if index % 1000 == 0:
            (folder / f"{index // 1000:03d}").mkdir(parents=True)
        (folder / f"{index // 1000:03d}" / f"{index:06d}.jpg").touch()
    chosen = options(folder, shard_size=1000)
    summary = label(chosen)
    assert (summary.images, summary.failed, summary.labelled, summary.exit_code) == (count, count, 0, 3)
    found = failures_of(chosen.output)
    assert len(found) == count
    assert {row["status"] for row in found.values()} == {"empty"}


def test_a_folder_with_nothing_in_it_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match="no images found among 0 files"):
        label(options(tmp_path / "images"))
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_of_one_class_labels_everything_with_it(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg())
    (tmp_path / "one.txt").write_text("thing")
    chosen = options(folder, vocabulary=str(tmp_path / "one.txt"))
    assert label(chosen).exit_code == 0
    (row,) = read_masks(Storage(chosen.output))
    assert (mask_from_png(row.mask) == 0).all()
    assert row.mean_confidence == pytest.approx(1)


def test_one_folder_deep_in_a_loop_of_links_is_listed_once(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "b" / "x.jpg").write_bytes(jpeg())
    assert [image.uri for image in list_images(str(tmp_path))] == ["a/b/x.jpg"]


def test_the_largest_size_is_decoded_and_the_next_is_not():
    side = int(MAX_PIXELS**0.5)
    decoded = read_pixels(png(side, 8, zlib.compress(bytes((side + 1) * 8))))
    assert decoded.shape == (8, side, 3)
    with pytest.raises(ImageError, match="too_large"):
        read_pixels(png(side + 1, side + 1, zlib.compress(b"")))
