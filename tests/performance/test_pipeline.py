"""The job against a plain loop: a small run, and how its processes are counted."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from performance.pipeline import Accounts, kind_of_process, measure_pipeline
from PIL import Image
from tiny import random_image

from proxyclip.pipeline.options import LabelOptions

ROOT = Path(__file__).resolve().parents[2]
VOCABULARY = ROOT / "proxyclip" / "demo" / "vocabulary.json"


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("python -c import sys; from proxyclip.images.readers import serve; serve(sys.argv[1])", "image readers"),
        ("ray::MapWorker(MapBatches(LabelActor)).submit", "actors"),
        ("ray::ReadShardSource", "shard readers and writers"),
        ("ray::IDLE", "shard readers and writers"),
        ("ray::DashboardAgent", "Ray's own"),
        ("ray::_StatsActor", "Ray's own"),
        ("/usr/lib/raylet --node", "Ray's own"),
    ],
)
def test_a_process_is_known_by_its_command_line(command, kind):
    assert kind_of_process(command) == kind


def test_a_process_stays_counted_after_its_end():
    accounts = Accounts(psutil.Process())
    with subprocess.Popen(
        [sys.executable, "-c", "while True: pass", "proxyclip.images.readers"], stdout=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 300
        while (spent := accounts.cpu_seconds()["image readers"]) < 0.1:
            assert time.monotonic() < deadline
        process.kill()
    assert accounts.cpu_seconds()["image readers"] >= spent
    assert accounts.peak_mb("image readers") > 1


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
    loop, job = measure_pipeline(options)
    for row in (loop, job):
        assert float(row["images/s"]) > 0
        assert float(row["CPU ms an image"]) > 0
    assert "networks" in loop["of which"]
    assert "actors" in job["of which"]
    assert len(list((tmp_path / "out" / "commits").glob("*.json"))) == 6
