"""The benchmarks of the pipeline: a small run of each, and what they count."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from performance.accounts import Accounts, _kind
from performance.scaling import benchmark_scaling
from performance.throughput import benchmark_pipeline
from PIL import Image
from tiny import random_image

from proxyclip.config import LabelOptions
from proxyclip.demo.scenes import draw_scene

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = ROOT / "proxyclip" / "demo" / "vocabulary.json"


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("python -c import sys; from proxyclip.images.readers import serve; serve(sys.argv[1])", "decoders"),
        ("ray::MapWorker(MapBatches(LabelShards)).submit", "actors"),
        ("ray::ReadShardSource", "readers and writers"),
        ("ray::IDLE", "readers and writers"),
        ("ray::DashboardAgent", "Ray's own"),
        ("ray::_StatsActor", "Ray's own"),
        ("/usr/lib/raylet --node", "Ray's own"),
    ],
)
def test_processes_are_known_by_their_command_line(command, kind):
    assert _kind(command) == kind


def test_what_a_process_took_is_counted_after_its_end():
    accounts = Accounts(psutil.Process())
    with subprocess.Popen(
        [sys.executable, "-c", "while True: pass", "proxyclip.images.readers"], stdout=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 60
        while (spent := accounts.cpu_seconds()["decoders"]) < 0.1:
            assert time.monotonic() < deadline
        process.kill()
    assert accounts.cpu_seconds()["decoders"] >= spent
    assert accounts.peak_mb("decoders") > 1


@pytest.mark.slow
def test_the_job_is_measured_against_a_loop(tmp_path):
    (tmp_path / "images").mkdir()
    for index in range(12):
        Image.fromarray(random_image(60, 90, index)).save(tmp_path / "images" / f"{index}.jpg")
    options = LabelOptions(
        *(str(tmp_path / "images"), str(tmp_path / "out"), str(VOCABULARY)),
        preset="demo",
        short_side=56,
        crop=56,
        stride=56,
        shard_size=2,
        threads=1,
    )
    loop, job = benchmark_pipeline(options, ROOT / "jobs" / "label.py")
    for row in (loop, job):
        assert float(row["images/s"]) > 0
        assert float(row["CPU ms an image"]) > 0
    assert "networks" in loop["of which"]
    assert "actors" in job["of which"]
    assert len(list((tmp_path / "out" / "commits").glob("*.json"))) == 6


@pytest.mark.slow
def test_stand_ins_go_through_the_whole_pipeline(tmp_path):
    for index in range(4):
        Image.fromarray(draw_scene(index, (375, 500)).image).save(tmp_path / f"{index}.jpg")
    one, two = benchmark_scaling(str(tmp_path), 0.02, (1, 2))
    assert 30 < float(one["images/s"]) <= 52  # it cannot be faster than its stand-in
    assert float(two["images/s"]) <= 104
    assert float(two["of 1 actor"].removesuffix("x")) == pytest.approx(
        float(two["images/s"]) / float(one["images/s"]), rel=0.05
    )


def test_images_of_another_size_are_refused(tmp_path):
    Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"\(10, 10\) pixels found"):
        benchmark_scaling(str(tmp_path), 0.02, (1,))
