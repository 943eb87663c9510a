"""Decoder processes: the same pixels as in this process, and images that crash, hang or fill memory."""

from __future__ import annotations

import io
import os
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
from proxyclip.images import readers as module
from proxyclip.images.readers import DecoderPool
from proxyclip.images.reading import ImageError, decode_image, read_image

# Leaves the images below at their size.
WINDOWS = WindowConfig(short_side=60)


@pytest.fixture
def pool(tmp_path, monkeypatch):
    for name, value in faulty_environment(tmp_path / "faulty").items():
        monkeypatch.setenv(name, value)
    made = DecoderPool(2, WINDOWS, timeout_s=60)
    yield made
    made.close()


@pytest.fixture
def hasty(tmp_path, monkeypatch):
    """A pool that waits for a second."""
    for name, value in faulty_environment(tmp_path / "faulty").items():
        monkeypatch.setenv(name, value)
    made = DecoderPool(2, WINDOWS, timeout_s=1)
    yield made
    made.close()


def failure(pool: DecoderPool, data: bytes) -> tuple[str, str]:
    with pytest.raises(ImageError) as caught:
        pool.read(data)
    return caught.value.status, caught.value.reason


def test_pixels_are_those_of_this_process(pool):
    for seed in range(3):
        image = pool.read(jpeg(seed=seed))
        np.testing.assert_array_equal(image.pixels, decode_image(jpeg(seed=seed)))
        assert image.original_hw == (60, 90)
        assert image.pixels.dtype == np.uint8
        assert image.pixels.flags.writeable


def test_an_image_larger_than_any_buffer_comes_whole():
    buffer = io.BytesIO()
    Image.fromarray(random_image(1500, 2000)).save(buffer, "BMP")
    pool = DecoderPool(1, WindowConfig(short_side=1500), timeout_s=60)
    np.testing.assert_array_equal(pool.read(buffer.getvalue()).pixels, random_image(1500, 2000))
    pool.close()


def test_images_come_at_the_size_that_their_windows_are_cut_from():
    windows = WindowConfig(short_side=30, fast_decode=True)
    pool = DecoderPool(1, windows, timeout_s=60)
    image = pool.read(jpeg())
    np.testing.assert_array_equal(image.pixels, read_image(jpeg(), windows).pixels)
    assert image.pixels.shape == (30, 45, 3)
    assert image.original_hw == (60, 90)
    pool.close()


@pytest.mark.parametrize("data", [b"", b"text", jpeg()[:300], b"\xff\xd8\xff"])
def test_failures_are_those_of_this_process(pool, data):
    with pytest.raises(ImageError) as caught:
        decode_image(data)
    assert failure(pool, data) == (caught.value.status, caught.value.reason)


def test_many_threads_get_their_own_image(pool):
    with ThreadPoolExecutor(8) as threads:
        for seed, image in enumerate(threads.map(lambda seed: pool.read(jpeg(seed=seed)), range(40))):
            np.testing.assert_array_equal(image.pixels, decode_image(jpeg(seed=seed)))


@pytest.mark.parametrize("fault", ["segfault", "abort", "exit"])
def test_an_image_that_crashes_its_decoder_fails_alone_and_says_so_each_time(pool, fault):
    with ThreadPoolExecutor(4) as threads:
        good = [threads.submit(pool.read, jpeg(seed=seed)) for seed in range(8)]
        bad = [threads.submit(failure, pool, jpeg(fault)) for _ in range(2)]
        good += [threads.submit(pool.read, jpeg(seed=seed)) for seed in range(8)]
        assert {future.result(60) for future in bad} == {("decoder_crashed", "its decoder process died twice")}
        assert {future.result(60).pixels.shape for future in good} == {(60, 90, 3)}


def test_a_crash_that_does_not_come_again_costs_nothing(pool, tmp_path):
    assert pool.read(jpeg(f"once:{tmp_path / 'crashed'}")).pixels.shape == (60, 90, 3)
    assert (tmp_path / "crashed").exists()


def test_a_decoder_killed_from_outside_costs_no_image(pool):
    pool.read(jpeg())
    for process in children(os.getpid()):
        os.kill(process, signal.SIGKILL)
    assert pool.read(jpeg()).pixels.shape == (60, 90, 3)


@pytest.mark.parametrize("fault", ["sleep", "spin"])
def test_an_image_that_takes_too_long_is_given_up(hasty, fault):
    start = time.monotonic()
    reasons = {failure(hasty, jpeg(fault)) for _ in range(2)}
    assert reasons == {("timed_out", "decoding it took longer than 1 s")}
    assert time.monotonic() - start < 30
    assert hasty.read(jpeg()).pixels.shape == (60, 90, 3)


def test_a_decoder_that_is_stopped_is_given_up(hasty):
    hasty.read(jpeg())
    for process in children(os.getpid()):
        os.kill(process, signal.SIGSTOP)
    large = jpeg() + bytes(2**24)  # more than any buffer: the sender blocks too
    assert failure(hasty, large)[0] == "timed_out"
    assert hasty.read(jpeg()).pixels.shape == (60, 90, 3)


def test_memory_is_bounded_and_its_lack_is_a_failure(pool):
    assert failure(pool, jpeg("memory")) == ("decode_failed", "MemoryError")


def test_what_a_decoder_prints_does_not_get_among_the_pixels(pool):
    np.testing.assert_array_equal(pool.read(jpeg("noise")).pixels, decode_image(jpeg("noise")))


def test_a_decoder_that_cannot_start_is_no_fault_of_the_image(monkeypatch):
    monkeypatch.setattr(module, "_MAIN", "import nothing_of_this_name")
    with pytest.raises(RuntimeError, match=r"did not start \(exit code"):
        DecoderPool(1, WINDOWS, timeout_s=10).read(jpeg())


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


@pytest.mark.parametrize("fault", ["", "spin"])
def test_no_decoder_outlives_the_process_that_started_it(tmp_path, fault):
    """Killed in the middle of an image, it takes the decoders along: idle ones at once, busy ones a bit later."""
    (tmp_path / "bad.jpg").write_bytes(jpeg(fault))
    code = """if True:
        import sys, threading
        from proxyclip.images.readers import DecoderPool
        from proxyclip.config import WindowConfig
        pool = DecoderPool(2, WindowConfig(), timeout_s=0.5)
        link = pool._idle.queue[-1]._start()
        print("ready", flush=True)
        if sys.argv[2]:  # no deadline here: the parent is as good as dead
            pool._idle.queue[-1]._timeout_s = 1000
            pool.read(open(sys.argv[1], "rb").read())
        sys.stdin.read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "bad.jpg"), fault],
        env=os.environ | faulty_environment(tmp_path / "faulty"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    decoders = children(process.pid)
    assert len(decoders) == 1
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while any(alive(decoder) for decoder in decoders):
        assert time.monotonic() < deadline, "a decoder is left"


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(parent: int) -> set[int]:
    """The decoder processes of a process."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_child = int((process / "stat").read_text().rpartition(")")[2].split()[1]) == parent
            if is_child and b"proxyclip.images.readers" in (process / "cmdline").read_bytes():
                found.add(int(process.name))
        except OSError:
            continue
    return found
