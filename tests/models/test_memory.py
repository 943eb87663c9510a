"""When memory runs out, batches get smaller; if that does not help, only the image fails."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
import torch
from tiny import WINDOWS, random_image, random_vocabulary, tiny_segmenter

from proxyclip.config import SegmenterConfig
from proxyclip.models.decoding import decoder as module
from proxyclip.models.memory import BatchSize, OutOfMemory

FIVE = random_vocabulary(5)
TOO_MUCH = 2**48  # bytes, more than any machine has


def refuses_more_than(limit: int, error: Exception | None = None):
    """Work that runs out of memory above a size: by `error`, or by a real allocation of torch."""
    tried = []

    def work(size: int) -> int:
        tried.append(size)
        if size > limit:
            if error is not None:
                raise error
            torch.empty(TOO_MUCH, dtype=torch.uint8)
        return size

    return work, tried


@pytest.mark.parametrize("error", [None, torch.OutOfMemoryError("CUDA out of memory"), MemoryError()], ids=repr)
def test_a_batch_size_is_halved_until_it_fits_and_stays_small(error, caplog):
    batch = BatchSize("windows", 8)
    work, tried = refuses_more_than(3, error)
    with caplog.at_level(logging.WARNING):
        assert batch.fit(work) == 2
        assert batch.fit(work) == 2
    assert tried == [8, 4, 2, 2]
    assert [record.message for record in caplog.records] == [
        "Out of memory with 8 windows at once; using 2 from now on."
    ]


def test_a_batch_size_that_never_fits_says_so_and_is_not_made_smaller():
    batch = BatchSize("windows", 6, smallest=2)
    work, tried = refuses_more_than(1)
    with pytest.raises(OutOfMemory, match="2 windows at once"):
        batch.fit(work)
    assert tried == [6, 3, 2]
    assert batch.size == 6


def test_other_errors_are_not_taken_for_want_of_memory():
    def work(size):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        BatchSize("windows", 8).fit(work)


def test_tensors_of_the_failed_try_are_freed_before_the_next():
    alive = []

    class Held:
        def __init__(self):
            alive.append(1)

        def __del__(self):
            alive.pop()

    def work(size):
        held = Held()
        assert len(alive) == 1
        if size > 1:
            torch.empty(TOO_MUCH, dtype=torch.uint8)
        return held is not None

    assert BatchSize("windows", 4).fit(work)


@pytest.fixture
def segmenter():
    return tiny_segmenter()


def limit_windows(segmenter, monkeypatch, fits):
    """Make the networks ask for too much memory if `fits(windows)` is False."""
    encode = segmenter.encode_windows

    def limited(windows):
        if not fits(windows):
            torch.empty(TOO_MUCH, dtype=torch.uint8)
        return encode(windows)

    monkeypatch.setattr(segmenter, "encode_windows", limited)


def test_a_batch_of_windows_that_does_not_fit_is_halved_for_good(segmenter, monkeypatch):
    images = [random_image(112, 200, seed) for seed in range(3)]
    one_by_one = segmenter.encode_batch(images)
    segmenter.windows_at_once = 8
    sizes = []
    limit_windows(segmenter, monkeypatch, lambda windows: sizes.append(len(windows)) or len(windows) <= 2)
    for features, alone in zip(segmenter.encode_batch(images), one_by_one, strict=True):
        torch.testing.assert_close(features.features, alone.features, rtol=0, atol=1e-4)
    assert sizes[:3] == [8, 4, 2]
    assert segmenter.windows_at_once == 2
    sizes.clear()
    segmenter.encode_batch(images)
    assert set(sizes) == {2}


def test_a_window_that_does_not_fit_is_said_to(segmenter, monkeypatch):
    limit_windows(segmenter, monkeypatch, lambda windows: False)
    with pytest.raises(OutOfMemory, match="1 windows at once"):
        segmenter.encode(random_image(60, 60))


def test_logits_that_do_not_fit_are_decoded_in_smaller_parts(segmenter, monkeypatch):
    features = segmenter.encode(random_image(112, 200))
    whole = segmenter.decode(features, FIVE)
    decode = module.decode_features
    asked = []

    def limited(*args, logits_at_once, **kwargs):
        asked.append(logits_at_once)
        if logits_at_once > module.LOGITS_AT_ONCE["cpu"] // 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return decode(*args, logits_at_once=112 * 200, **kwargs)

    monkeypatch.setattr(module, "decode_features", limited)
    for _ in range(2):
        parts = segmenter.decode(features, FIVE)
        np.testing.assert_array_equal(parts.mask, whole.mask)
        np.testing.assert_allclose(parts.confidence, whole.confidence, atol=1e-5)
    assert asked == [module.LOGITS_AT_ONCE["cpu"] // part for part in (1, 2, 4, 8, 8)]


def test_logits_that_never_fit_are_said_to(segmenter, monkeypatch):
    features = segmenter.encode(random_image(60, 60))

    def refuse(*args, **kwargs):
        torch.empty(TOO_MUCH, dtype=torch.uint8)

    monkeypatch.setattr(module, "decode_features", refuse)
    with pytest.raises(OutOfMemory, match="logits at once"):
        segmenter.decode(features, FIVE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_with_little_memory_the_results_are_the_same():
    windows = dataclasses.replace(WINDOWS, short_side=448, long_side=2048, crop=448, stride=224)
    config = SegmenterConfig(windows=windows)
    images = [random_image(600, 800, seed) for seed in range(4)]
    wanted = tiny_segmenter(config, device="cuda", batch_windows=1).encode_batch(images)
    segmenter = tiny_segmenter(config, device="cuda", batch_windows=256)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 2**30) / total)
    try:
        found = segmenter.encode_batch(images)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 1 <= segmenter.windows_at_once < 256
    for features, alone in zip(found, wanted, strict=True):
        torch.testing.assert_close(features.features, alone.features, rtol=0, atol=1e-3)
