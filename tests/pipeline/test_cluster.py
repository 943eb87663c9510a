"""The job on a cluster that was there before it: `ray start --head`, then `ray job submit`."""

from __future__ import annotations

import contextlib
import io
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from fault_proxy import fault_proxy
from labelling import embeddings_of
from PIL import Image
from ports import free_port
from ray_head import RAY, ray_head, with_token

from proxyclip.dataset.commits import committed
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.storage.store import Storage

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 600


@pytest.fixture(scope="module")
def proxy(s3):
    """A proxy before the S3 server, which the cluster's jobs go through."""
    with fault_proxy(s3.endpoint) as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", running.url)
        yield running


@pytest.fixture(scope="module")
def head(proxy, tmp_path_factory):
    """A cluster of one machine on loopback, with a token of its own; its environment and dashboard address."""
    env, dashboard = with_token(tmp_path_factory.mktemp("head")), free_port()
    with ray_head(
        env,
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"),
        *(f"--port={free_port()}", f"--dashboard-port={dashboard}", "--num-cpus=2"),
        f"--dashboard-agent-listen-port={free_port()}",  # else one for all clusters of this machine
    ):
        yield env, f"http://127.0.0.1:{dashboard}"


def submission(head, images, output, embeddings, *flags):
    """The command that submits a job, and its environment."""
    env, dashboard = head
    words = ["--input", images, "--output", output, "--preset", "demo", "--shard-size", "2"]
    words += ["--vocabulary", "proxyclip/demo/vocabulary.json", "--embeddings", embeddings]
    command = [RAY, "job", "submit", "--address", dashboard, "--working-dir", ".", *flags]
    command += ["--", "python", "jobs/label.py", *map(str, words)]
    return {"args": command, "cwd": ROOT, "env": env, "text": True}


def submit(*job):
    return subprocess.run(**submission(*job), capture_output=True, timeout=DEADLINE_S)


def draw(images, count):
    for index in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (80, 60 + index), (4 * index, 120, 200)).save(buffer, "PNG")
        Storage(images).write(f"{index:02d}.png", buffer.getvalue())


@pytest.mark.slow
def test_a_submitted_job_that_is_stopped_is_finished_by_submitting_it_again(head, proxy, s3, tmp_path):
    images, output = s3.uri(f"bucket/{uuid.uuid4().hex}"), tmp_path / "labels"
    draw(images, 40)
    embeddings = embeddings_of(ROOT / "proxyclip" / "demo" / "vocabulary.json", tmp_path)
    submitted = submission(head, images, output, embeddings, "--submission-id", "stopped")
    # Held, the job cannot finish before it is stopped.
    with subprocess.Popen(**submitted) as job, proxy.holding(f"GET /{images.removeprefix('s3://')}/39.png"):
        deadline = time.monotonic() + DEADLINE_S
        while len(committed(Storage(str(output)))) < 2:
            assert job.poll() is None
            assert time.monotonic() < deadline
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.wait(0.1)
        env, dashboard = head
        stop = [RAY, "job", "stop", "--address", dashboard, "stopped"]
        subprocess.run(stop, env=env, check=True, capture_output=True)
        assert 2 <= len(committed(Storage(str(output)))) < 20
    run = submit(head, images, output, embeddings)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "40 of 40 images labelled, 0 failed" in run.stdout
    report = verify(Storage(str(output)))
    assert (report.images, report.problems, report.unfinished) == (40, [], [])
