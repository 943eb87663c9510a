"""The job on a cluster that was there before it: `ray start --head`, then `ray job submit`."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from proxyclip.dataset.commits import committed
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.storage.store import Storage

ROOT = Path(__file__).resolve().parents[2]
RAY = Path(sys.executable).with_name("ray")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A cluster of one machine on loopback, with a token of its own; its environment and dashboard address."""
    token = tmp_path_factory.mktemp("head") / "token"
    token.write_text(secrets.token_hex(32))
    env = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "PATH": f"{RAY.parent}:{os.environ['PATH']}",
    }
    env.pop("RAY_ADDRESS", None)
    dashboard = _free_port()
    folder = f"/tmp/proxyclip-{secrets.token_hex(4)}"  # Ray's sockets need a short path
    process = subprocess.Popen(
        [
            *(RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"),
            *(f"--port={_free_port()}", f"--dashboard-port={dashboard}", "--num-cpus=2"),
            *("--disable-usage-stats", f"--temp-dir={folder}"),
            f"--dashboard-agent-listen-port={_free_port()}",  # else one for all clusters of this machine
        ],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said = []
        for line in process.stdout:
            said.append(line)
            if "Ray runtime started" in line:
                break
        else:
            pytest.fail(f"ray start ended with {process.wait()}:\n{''.join(said)}")
        yield env, f"http://127.0.0.1:{dashboard}"
    finally:
        process.kill()
        process.wait()
        _kill_all(folder)  # `ray stop` would stop every cluster of this machine


def _kill_all(folder: str) -> None:
    """Kill the processes whose command line names a folder, and remove it."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if folder.encode() in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def submit(head, images, output, *flags, **kwargs):
    env, dashboard = head
    words = ["--input", images, "--output", output, "--preset", "demo", "--shard-size", "2"]
    words += ["--vocabulary", "proxyclip/demo/vocabulary.json"]
    command = [RAY, "job", "submit", "--address", dashboard, "--working-dir", ".", *flags]
    command += ["--", "python", "jobs/label.py", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


def draw(images, count):
    images.mkdir()
    for index in range(count):
        Image.new("RGB", (80, 60 + index), (4 * index, 120, 200)).save(images / f"{index:02d}.png")


def test_ray_job_submit_runs_the_same_job(head, tmp_path):
    images, output = tmp_path / "images", tmp_path / "labels"
    draw(images, 6)
    run = submit(head, images, output)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "6 of 6 images labelled, 0 failed" in run.stdout
    totals = Manifest(Storage(str(output))).totals()
    assert (totals.labelled, totals.committed, totals.shards) == (6, 3, 3)


def test_ray_job_stop_keeps_what_is_done(head, tmp_path):
    images, output = tmp_path / "images", tmp_path / "labels"
    draw(images, 40)
    run = submit(head, images, output, "--no-wait", "--submission-id", "stopped")
    assert run.returncode == 0, run.stdout + run.stderr
    deadline = time.monotonic() + 120
    while len(committed(Storage(str(output)))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    env, dashboard = head
    subprocess.run([RAY, "job", "stop", "--address", dashboard, "stopped"], env=env, check=True, capture_output=True)
    done = set(committed(Storage(str(output))))
    assert 2 <= len(done) < 20
    run = submit(head, images, output)
    assert run.returncode == 0, run.stdout + run.stderr
    report = verify(Storage(str(output)))
    assert (report.images, report.problems, report.unfinished) == (40, [], [])
