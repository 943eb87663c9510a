"""The whole job while its store or its disk fails, or while another job writes to the same output."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import runpy
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import ray
from fault_proxy import EXPIRED, KINDS, RESET_BEFORE, fault_proxy
from labelling import command, draw, embedded, files, small_options

from proxyclip.dataset.manifest import ShardRange
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.run import label
from proxyclip.pipeline.stages.read import read_shards
from proxyclip.storage import remote
from proxyclip.storage.store import Storage

NUM_IMAGES = 18
SECRET = "proxyclip-test-secret"  # of the S3 server; every process of these jobs has it in its environment
SEED = 20261121
DEADLINE_S = 600


@pytest.fixture(scope="module")
def proxy(s3):
    """A proxy before the S3 server, and a cluster whose processes go through it."""
    with fault_proxy(s3.endpoint, seed=SEED) as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", running.url)
        patch.setenv("AWS_MAX_ATTEMPTS", "15")
        patch.setenv("PROXYCLIP_READ_TIMEOUT_S", "1")
        # More cores than there may be: two jobs at once need room for two actors and what reads and writes.
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            log_to_driver=False,
            logging_level="ERROR",
        )
        try:
            yield running
        finally:
            ray.shutdown()


@pytest.fixture(autouse=True)
def healthy(proxy):
    yield
    proxy.rate, proxy.always, proxy.only = 0.0, None, ""


@pytest.fixture(scope="module")
def options(proxy, s3, tmp_path_factory):
    """A corpus in the bucket; outputs are still to be named."""
    folder = tmp_path_factory.mktemp("corpus")
    draw(folder / "images", NUM_IMAGES)
    images = Storage(s3.uri(f"bucket/{uuid.uuid4().hex}/images"))
    for path in folder.rglob("*.jpg"):
        images.write(str(path.relative_to(folder / "images")), path.read_bytes())
    return embedded(small_options(folder / "images", input=images.uri, output="", shard_size=3))


@pytest.fixture(scope="module")
def undisturbed(options):
    """All files of a run that nothing disturbed, by name."""
    output = beside(options)
    summary = label(dataclasses.replace(options, output=output))
    assert (summary.exit_code, summary.labelled) == (0, NUM_IMAGES)
    return files(output)


@pytest.fixture
def main(monkeypatch):
    """Runs jobs/label.py in this process, given its options. Returns its exit code."""

    def run(options):
        script, *words = command(options)[1:]
        monkeypatch.setattr(sys, "argv", [script, *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(script, run_name="__main__")
        return ended.value.code

    return run


def beside(options: LabelOptions) -> str:
    """A new output in the bucket of the images."""
    return f"{options.input.rpartition('/')[0]}/{uuid.uuid4().hex}"


def test_a_job_over_a_faulty_store_writes_the_same_bytes(options, undisturbed, proxy, main, capsys):
    output = beside(options)
    proxy.seen.clear()
    proxy.faults.clear()
    proxy.rate = 0.05
    assert main(dataclasses.replace(options, output=output)) == 0
    proxy.rate = 0.0
    count, requests = proxy.faults.total(), len(proxy.seen)
    said = capsys.readouterr().out
    print(f"seed {SEED}: {count} faults in {requests} requests: {dict(proxy.faults)}")
    assert set(proxy.faults) == set(KINDS)
    assert count >= 0.05 * requests
    assert files(output) == undisturbed
    assert "storage requests were retried" in said


@pytest.mark.slow
def test_an_input_that_refuses_costs_shards_and_no_image(options, undisturbed, proxy, main, capfd):
    """Credentials that expire on the way are nobody's failure; with new ones the same command goes on."""
    options = dataclasses.replace(options, output=beside(options))
    proxy.always, proxy.only = EXPIRED, "/images/"
    assert main(options) == 1
    said = "".join(capfd.readouterr())
    assert f"0 of {NUM_IMAGES} images labelled, 0 failed" in said
    for shard in range(NUM_IMAGES // 3):
        assert f"Shard {shard} failed: storage: {options.input}: ExpiredToken" in said
    assert "set AWS_ACCESS_KEY_ID" in said
    proxy.always = None
    assert main(options) == 0
    assert files(options.output) == undisturbed
    assert SECRET not in said + "".join(capfd.readouterr())


@pytest.mark.parametrize("down", ["/images/", "/plan/"])
def test_a_store_that_stays_down_costs_shards_and_no_image(options, undisturbed, proxy, monkeypatch, down):
    output = beside(options)
    for name in ("plan/00000.parquet", "vocabulary.json"):
        Storage(output).write(name, undisturbed[name])
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    remote.remote.cache_clear()  # its connections keep their settings
    proxy.always, proxy.only = RESET_BEFORE, down
    rows = [row for table in read_shards(options.input, output, ShardRange(0, (0, 2))) for row in table.to_pylist()]
    remote.remote.cache_clear()
    assert [row["shard"] for row in rows] == [0, 2]
    for row in rows:
        assert row["uris"] == []
        assert "2 at most" in row["error"]
    assert sum(row["retries"] for row in rows) > 0


def test_a_job_without_its_store_says_so(options, proxy, main, monkeypatch, capsys):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    remote.remote.cache_clear()
    proxy.always = RESET_BEFORE
    assert main(dataclasses.replace(options, output=beside(options))) == 2
    remote.remote.cache_clear()
    error = capsys.readouterr().err
    assert error.startswith("error: storage: s3://bucket/")
    assert "2 at most" in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_a_store_that_goes_down_midway_is_told_and_resumed(options, undisturbed, s3):
    options = dataclasses.replace(options, output=beside(options), address="local")
    with fault_proxy(s3.endpoint) as proxy:
        proxy.held = "/images/more/"  # so the job cannot finish before the store goes down
        env = os.environ | {"AWS_ENDPOINT_URL": proxy.url, "AWS_MAX_ATTEMPTS": "3"}
        process = subprocess.Popen(command(options), env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + DEADLINE_S
        while sum("/commits/" in path for method, path in proxy.seen if method == "PUT") < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
        proxy.always, proxy.held = RESET_BEFORE, ""
        _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode in (1, 2)
    assert "storage: s3://bucket/" in said
    assert "3 at most" in said
    assert "Traceback" not in said
    done = [name for name in files(options.output) if name.startswith("commits/")]
    assert 0 < len(done) < NUM_IMAGES // 3
    assert not [name for name in files(options.output) if name.startswith("failures/")]
    assert label(dataclasses.replace(options, address=None)).exit_code == 0
    assert files(options.output) == undisturbed


def test_a_full_disk_costs_shards_and_the_rest_goes_on(options, undisturbed, small_disk):
    options = dataclasses.replace(options, output=str(small_disk / "out"))
    ballast, page = small_disk / "ballast", 4096
    needed = sum(-(-len(data) // page) for name, data in undisturbed.items() if name != "class_stats.parquet")
    # Three pages are missing: of six shards written at once, to the last page, three can still be committed.
    ballast.write_bytes(bytes(2**20 - (needed - 3) * page))
    summary = label(options)
    assert summary.exit_code == 1
    assert 0 < summary.committed < summary.shards
    assert len(summary.shard_errors) == summary.shards - summary.committed
    assert all("No space left on device; make room" in error for error in summary.shard_errors.values())
    assert not [path for path in small_disk.rglob("*") if "tmp" in path.name]
    ballast.unlink()
    assert label(options).exit_code == 0
    assert files(options.output) == undisturbed


@pytest.mark.parametrize("kind", [pytest.param("disk", marks=pytest.mark.slow), "s3"])
def test_two_jobs_on_one_output_make_one_result(options, undisturbed, kind, tmp_path):
    output = str(tmp_path / "out") if kind == "disk" else beside(options)
    address = ray.get_runtime_context().gcs_address
    words = command(dataclasses.replace(options, output=output, address=address))
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    for process in both:
        said, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, said
        assert f"{NUM_IMAGES} of {NUM_IMAGES} images labelled, 0 failed" in said
    assert files(output) == undisturbed


def test_no_secret_is_written_or_printed(options, undisturbed, main, capfd, monkeypatch):
    """Not by a run that cannot start, nor in what the runs above wrote, nor in the logs of their processes."""
    options = dataclasses.replace(options, output=beside(options))
    monkeypatch.setenv("AWS_SESSION_TOKEN", "hush-token")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-key")
    assert main(options) == 2
    assert main(dataclasses.replace(options, output="s3://AKIA:hush-password@bucket/out")) == 2
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hush-user@127.0.0.1:9")
    assert main(dataclasses.replace(options, input=f"{options.input}/more")) == 2
    monkeypatch.undo()
    said = "".join(capfd.readouterr())
    assert len(said.splitlines()) == 3
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    logs = {str(path): path.read_bytes() for path in session.rglob("*") if path.is_file()}
    assert any("worker" in name for name in logs)
    written = files(options.input.rpartition("/")[0]) | logs
    assert len(written) > len(undisturbed) + len(logs)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRET
    for secret in (SECRET, "hush"):
        assert secret not in said
        assert [name for name, data in written.items() if secret.encode() in data] == []
