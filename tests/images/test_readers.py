"""Reader processes: the same pixels as in this process, and images that crash, hang or fill memory."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from encoded import faulty_environment, jpeg
from PIL import Image
from tiny import random_image

from proxyclip.config import WindowConfig
from proxyclip.images.errors import ImageError
from proxyclip.images.readers import ReaderPool
from proxyclip.images.reading import read_image, read_pixels
from proxyclip.images.sizes import ResizedImage

# Leaves the images below at their size.
WINDOWS = WindowConfig(short_side=60)


@pytest.fixture
def pool(tmp_path, monkeypatch):
    for name, value in faulty_environment(tmp_path / "faulty").items():
        monkeypatch.setenv(name, value)
    made = ReaderPool(2, WINDOWS, timeout_s=60)
    yield made
    made.close()


@pytest.fixture
def hasty(tmp_path, monkeypatch):
    """A pool that waits for a second."""
    for name, value in faulty_environment(tmp_path / "faulty").items():
        monkeypatch.setenv(name, value)
    made = ReaderPool(2, WINDOWS, timeout_s=1)
    yield made
    made.close()


def failure(pool: ReaderPool, data: bytes) -> tuple[str, str]:
    with pytest.raises(ImageError) as caught:
        pool.read(data)
    return caught.value.status, caught.value.reason


def read_at_last(pool: ReaderPool) -> ResizedImage:
    """Read a good image. On a busy machine even that may take longer than `hasty` waits, so it has 60 tries."""
    for _ in range(60):
        with contextlib.suppress(ImageError):
            return pool.read(jpeg())
    raise AssertionError("no good image was read")


def test_pixels_are_those_of_this_process(pool):
    for seed in range(3):
        image = pool.read(jpeg(seed=seed))
        np.testing.assert_array_equal(image.pixels, read_pixels(jpeg(seed=seed)))
        assert image.original_hw == (60, 90)
        assert image.pixels.dtype == np.uint8
        assert image.pixels.flags.writeable


def test_an_image_larger_than_any_buffer_comes_whole():
    buffer = io.BytesIO()
    Image.fromarray(random_image(1500, 2000)).save(buffer, "BMP")
    pool = ReaderPool(1, WindowConfig(short_side=1500), timeout_s=60)
    np.testing.assert_array_equal(pool.read(buffer.getvalue()).pixels, random_image(1500, 2000))
    pool.close()


def test_images_come_at_the_size_that_their_windows_are_cut_from():
    windows = WindowConfig(short_side=30, fast_decode=True)
    pool = ReaderPool(1, windows, timeout_s=60)
    image = pool.read(jpeg())
    np.testing.assert_array_equal(image.pixels, read_image(jpeg(), windows).pixels)
    assert image.pixels.shape == (30, 45, 3)
    assert image.original_hw == (60, 90)
    pool.close()


def test_without_windows_images_keep_their_size():
    pool = ReaderPool(1, None, timeout_s=60)
    image = pool.read(jpeg())
    np.testing.assert_array_equal(image.pixels, read_pixels(jpeg()))
    assert image.original_hw == (60, 90)
    pool.close()


@pytest.mark.parametrize("data", [b"", b"text", jpeg()[:300], b"\xff\xd8\xff"])
def test_failures_are_those_of_this_process(pool, data):
    with pytest.raises(ImageError) as caught:
        read_pixels(data)
    assert failure(pool, data) == (caught.value.status, caught.value.reason)


def test_many_threads_get_their_own_image(pool):
    with ThreadPoolExecutor(8) as threads:
        for seed, image in enumerate(threads.map(lambda seed: pool.read(jpeg(seed=seed)), range(40))):
            np.testing.assert_array_equal(image.pixels, read_pixels(jpeg(seed=seed)))


@pytest.mark.parametrize("fault", ["segfault", "abort", "exit"])
def test_an_image_that_crashes_its_reader_fails_alone_and_says_so_each_time(pool, fault):
    with ThreadPoolExecutor(4) as threads:
        good = [threads.submit(pool.read, jpeg(seed=seed)) for seed in range(8)]
        bad = [threads.submit(failure, pool, jpeg(fault)) for _ in range(2)]
        good += [threads.submit(pool.read, jpeg(seed=seed)) for seed in range(8)]
        assert {future.result(300) for future in bad} == {("decoder_crashed", "its decoder process died twice")}
        assert {future.result(300).pixels.shape for future in good} == {(60, 90, 3)}


def test_a_crash_that_does_not_come_again_costs_nothing(pool, tmp_path):
    assert pool.read(jpeg(f"once:{tmp_path / 'crashed'}")).pixels.shape == (60, 90, 3)
    assert (tmp_path / "crashed").exists()


def test_a_reader_killed_from_outside_costs_no_image(pool):
    pool.read(jpeg())
    for process in children(os.getpid()):
        os.kill(process, signal.SIGKILL)
    assert pool.read(jpeg()).pixels.shape == (60, 90, 3)


@pytest.mark.parametrize("fault", ["sleep", "spin"])
def test_an_image_that_takes_too_long_is_given_up(hasty, fault):
    start = time.monotonic()
    reasons = {failure(hasty, jpeg(fault)) for _ in range(2)}
    assert reasons == {("timed_out", "decoding it took longer than 1 s")}
    assert time.monotonic() - start < 300  # the fault would last longer
    assert read_at_last(hasty).pixels.shape == (60, 90, 3)


def test_a_reader_that_is_stopped_is_given_up(hasty):
    read_at_last(hasty)
    for process in children(os.getpid()):
        os.kill(process, signal.SIGSTOP)
    large = jpeg() + bytes(2**24)  # more than any buffer: the sender blocks too
    assert failure(hasty, large)[0] == "timed_out"
    assert read_at_last(hasty).pixels.shape == (60, 90, 3)


def test_memory_is_bounded_and_its_lack_is_a_failure(pool):
    assert failure(pool, jpeg("memory")) == ("decode_failed", "MemoryError")


def test_what_a_reader_prints_does_not_get_among_the_pixels(pool):
    np.testing.assert_array_equal(pool.read(jpeg("noise")).pixels, read_pixels(jpeg("noise")))


def test_a_reader_that_cannot_start_is_no_fault_of_the_image(monkeypatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with pytest.raises(RuntimeError, match=r"reader process did not start \(exit code 1\)"):
        ReaderPool(1, WINDOWS, timeout_s=10).read(jpeg())


def test_processes_start_when_they_are_needed_and_end_with_close(pool):
    before = children(os.getpid())
    pool.read(jpeg())
    started = children(os.getpid()) - before
    assert len(started) == 1
    pool.read(jpeg(seed=1))
    assert children(os.getpid()) - before == started
    pool.close()
    assert not children(os.getpid()) & started
    assert pool.read(jpeg()).pixels.shape == (60, 90, 3)


@pytest.mark.parametrize("busy", [False, True])
def test_no_reader_outlives_the_process_that_started_it(tmp_path, busy):
    """Killed while it has an image, it takes the readers along: idle ones at once, busy ones a few seconds later."""
    spinning = tmp_path / "spinning"
    (tmp_path / "good.jpg").write_bytes(jpeg())
    (tmp_path / "bad.jpg").write_bytes(jpeg(f"spin:{spinning}"))
    code = """if True:
        import sys
        from proxyclip.images.readers import ReaderPool
        from proxyclip.config import WindowConfig
        pool = ReaderPool(2, WindowConfig(), timeout_s=5)
        for name in sys.argv[1:]:
            pool.read(open(name, "rb").read())
            print("read", flush=True)
        sys.stdin.read()
    """
    names = [tmp_path / "good.jpg", tmp_path / "bad.jpg"][: 2 if busy else 1]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *names],
        env=os.environ | faulty_environment(tmp_path / "faulty"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"read\n"
    readers = children(process.pid)
    assert len(readers) == 1
    while busy and not spinning.exists():
        assert process.poll() is None
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 300
    while any(alive(reader) for reader in readers):
        assert time.monotonic() < deadline, "a reader is left"


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(parent: int) -> set[int]:
    """The reader processes of a process."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_child = int((process / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            if is_child and b"proxyclip.images.readers" in (process / "cmdline").read_bytes():
                found.add(int(process.name))
        except OSError:
            continue
    return found
