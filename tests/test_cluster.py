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
from pathlib import Path

import pytest
from PIL import Image

from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.store import Storage

ROOT = Path(__file__).resolve().parents[1]
RAY = Path(sys.executable).with_name("ray")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def head(tmp_path):
    """A cluster of one machine on loopback, with a token of its own; its environment and dashboard address."""
    token = tmp_path / "token"
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


def test_ray_job_submit_runs_the_same_job(head, tmp_path):
    env, dashboard = head
    images, output = tmp_path / "images", tmp_path / "labels"
    images.mkdir()
    for index in range(6):
        Image.new("RGB", (80, 60 + index), (40 * index, 120, 200)).save(images / f"{index}.png")
    words = ["--input", images, "--output", output, "--preset", "demo", "--shard-size", "2"]
    words += ["--vocabulary", "proxyclip/demo/vocabulary.json"]
    submit = [RAY, "job", "submit", "--address", dashboard, "--working-dir", ".", "--", "python", "jobs/label.py"]
    run = subprocess.run([*submit, *map(str, words)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "6 of 6 images labelled, 0 failed" in run.stdout
    totals = Manifest(Storage(str(output))).totals()
    assert (totals.labelled, totals.committed, totals.shards) == (6, 3, 3)
