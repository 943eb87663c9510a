"""The whole job while its store or its disk fails, or while another job writes to the same output."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import ray
from fault_proxy import EXPIRED, KINDS, RESET_BEFORE, fault_proxy
from reference import load_module
from test_faults_disk import names, small_disk  # noqa: F401
from test_pipeline import ROOT, command, draw, vocabulary_file  # noqa: F401

from proxyclip.config import LabelOptions
from proxyclip.dataset.store import Storage
from proxyclip.pipeline.label import label

NUM_IMAGES = 18
SECRET = "proxyclip-test-secret"  # of the S3 server; every process of these jobs has it in its environment
SEED = 20261121


@pytest.fixture(scope="module")
def proxy(s3):
    """A proxy before the S3 server, and a cluster whose processes go through it."""
    with fault_proxy(s3.endpoint, seed=SEED) as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", running.url)
        patch.setenv("AWS_MAX_ATTEMPTS", "15")
        patch.setenv("PROXYCLIP_READ_TIMEOUT_S", "2")
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
def options(proxy, s3, tmp_path_factory, vocabulary_file):  # noqa: F811
    """A corpus in the bucket; outputs are still to be named."""
    folder = tmp_path_factory.mktemp("corpus")
    draw(folder, NUM_IMAGES)
    images = Storage(s3.uri(f"bucket/{uuid.uuid4().hex}/images"))
    for path in folder.rglob("*.jpg"):
        images.write(str(path.relative_to(folder)), path.read_bytes())
    return LabelOptions(
        input=images.uri,
        output="",
        vocabulary=str(vocabulary_file),
        preset="demo",
        short_side=56,
        crop=56,
        stride=56,
        shard_size=3,
        threads=1,
    )


@pytest.fixture(scope="module")
def undisturbed(options):
    """All files of a run that nothing disturbed, by name."""
    output = beside(options)
    summary = label(dataclasses.replace(options, output=output))
    assert (summary.exit_code, summary.labelled) == (0, NUM_IMAGES)
    return files(output)


@pytest.fixture
def main(monkeypatch):
    """jobs/label.py's main, given its options."""
    module = load_module(ROOT / "jobs" / "label.py")

    def run(options):
        monkeypatch.setattr(sys, "argv", command(options)[1:])
        return module.main()

    return run


def beside(options: LabelOptions) -> str:
    """A new output in the bucket of the images."""
    return f"{options.input.rpartition('/')[0]}/{uuid.uuid4().hex}"


def files(output: str) -> dict[str, bytes]:
    storage = Storage(output)
    return {entry.key: storage.read(entry.key) for entry in storage.list()}


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


@pytest.mark.parametrize("refused", ["/images/", "/masks/", "/commits/"])
def test_a_store_that_refuses_costs_shards_and_no_image(options, undisturbed, proxy, refused):
    """Credentials that expire on the way are nobody's failure; with new ones the same command goes on."""
    options = dataclasses.replace(options, output=beside(options))
    proxy.always, proxy.only = EXPIRED, refused
    summary = label(options)
    assert (summary.exit_code, summary.committed, summary.failed) == (1, 0, 0)
    assert sorted(summary.shard_errors) == list(range(summary.shards))
    for error in summary.shard_errors.values():
        assert "ExpiredToken" in error
        assert "set AWS_ACCESS_KEY_ID" in error
    proxy.always = None
    assert label(options).exit_code == 0
    assert files(options.output) == undisturbed


def test_a_store_that_is_down_says_so(options, proxy, main, monkeypatch, capsys):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    proxy.always = RESET_BEFORE
    # Other addresses than before: a process keeps its connections, and with them their settings.
    assert main(dataclasses.replace(options, input=f"{options.input}/more", output=beside(options))) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: storage: {options.input}/more: ")
    assert "2 at most" in error
    assert "Traceback" not in error


def test_a_full_disk_costs_shards_and_the_rest_goes_on(options, undisturbed, small_disk):  # noqa: F811
    options = dataclasses.replace(options, output=str(small_disk / "out"))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(2**20 - 56 * 2**10))
    summary = label(options)
    assert summary.exit_code == 1
    assert 0 < summary.committed < summary.shards
    assert len(summary.shard_errors) == summary.shards - summary.committed
    assert all("No space left on device; make room" in error for error in summary.shard_errors.values())
    assert not [name for name in names(small_disk) if "tmp" in name]
    ballast.unlink()
    assert label(options).exit_code == 0
    assert {name.removeprefix("out/"): (small_disk / name).read_bytes() for name in names(small_disk)} == undisturbed


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_two_jobs_on_one_output_make_one_result(options, undisturbed, kind, tmp_path):
    output = str(tmp_path / "out") if kind == "disk" else beside(options)
    address = ray.get_runtime_context().gcs_address
    words = command(dataclasses.replace(options, output=output, address=address))
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    for process in both:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        assert f"{NUM_IMAGES} of {NUM_IMAGES} images labelled, 0 failed" in said
    assert files(output) == undisturbed


def test_no_secret_is_written_or_printed(options, proxy, main, capfd, monkeypatch):
    options = dataclasses.replace(options, output=beside(options))
    proxy.always, proxy.only = EXPIRED, "/masks/"
    assert main(options) == 1
    proxy.always = None
    assert main(options) == 0
    with monkeypatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hush-key")
        patch.setenv("AWS_SESSION_TOKEN", "hush-token")
        assert main(dataclasses.replace(options, output=beside(options))) == 2
        assert main(dataclasses.replace(options, output="s3://AKIA:hush-password@bucket/out")) == 2
        patch.setenv("AWS_ENDPOINT_URL", "http://user:hush-user@127.0.0.1:9")
        assert main(dataclasses.replace(options, output=beside(options))) == 2
    said = "".join(capfd.readouterr())
    assert "ExpiredToken" in said
    written = files(options.output)
    logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    written |= {str(path): path.read_bytes() for path in logs.rglob("*") if path.is_file()}
    assert any("worker" in name for name in written)
    for secret in (SECRET, "hush"):
        assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRET
        assert secret not in said
        assert [name for name, data in written.items() if secret.encode() in data] == []
