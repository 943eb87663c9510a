"""Options of the job that make no sense are refused."""

from __future__ import annotations

import pytest

from proxyclip.pipeline.options import LabelOptions, allowed_failures


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shard_size": 0}, "--shard-size is 0"),
        ({"concurrency": 0}, "--concurrency"),
        ({"batch_windows": 0}, "--batch-windows"),
        ({"confidence_stride": 0}, "--confidence-stride"),
        ({"threads": 0}, "--threads"),
        ({"image_timeout_s": 0.0}, "--image-timeout-s is 0.0"),
        ({"image_timeout_s": float("nan")}, "--image-timeout-s"),
        ({"num_gpus": -0.5}, "--num-gpus"),
        ({"num_gpus": 1.5}, "--num-gpus"),
        ({"max_failures": "many"}, "--max-failures"),
    ],
)
def test_options_that_make_no_sense_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        LabelOptions(input="in", output="out", vocabulary="voc21", **values)


@pytest.mark.parametrize("num_gpus", ["auto", 0, 0.25, 1, 2])
def test_gpus_are_a_fraction_or_whole(num_gpus):
    assert LabelOptions(input="in", output="out", vocabulary="voc21", num_gpus=num_gpus).num_gpus == num_gpus


@pytest.mark.parametrize(
    ("limit", "num_images", "allowed"),
    [
        (None, 1000, None),
        ("0", 1000, 0),
        (" 25 ", 1000, 25),
        ("25", 10, 25),
        ("5%", 1000, 50),
        ("0.05", 1000, 50),
        ("0%", 1000, 0),
        ("100%", 1000, 1000),
        ("1.0", 1000, 1000),
        ("0.5%", 1000, 5),
        ("5%", 19, 0),
        ("29%", 100, 29),
        ("0.57", 100, 57),
    ],
)
def test_allowed_failures_are_a_count_or_a_share(limit, num_images, allowed):
    assert allowed_failures(limit, num_images) == allowed


@pytest.mark.parametrize("limit", ["", "%", "-1", "-5%", "101%", "1.5", "nan%", "inf%", "five", "5 images"])
def test_other_limits_of_failures_are_refused(limit):
    with pytest.raises(ValueError, match="a count \\(25\\) or a share"):
        allowed_failures(limit, 100)
