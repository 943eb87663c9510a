"""Copies of stored files on this machine: fetched once, shared, never broken."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from fault_proxy import RESET_BEFORE, fault_proxy

from proxyclip.storage import cache, remote, retry
from proxyclip.storage.store import Storage, StorageError

CONTENT = bytes(range(256)) * 40_000  # 10 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FETCH = "import sys; from proxyclip.storage import cache; print(cache.fetch(sys.argv[1]))"


@pytest.fixture
def proxy(s3, monkeypatch):
    """Before the S3 server; it sees and may break the requests."""
    with fault_proxy(s3.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.01)
        remote.remote.cache_clear()
        yield running
    remote.remote.cache_clear()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "proxyclip" / "weights"


@pytest.fixture
def storage(s3, proxy, folder):
    made = Storage(s3.uri(f"bucket/{uuid.uuid4().hex}"))
    made.write("net.safetensors", CONTENT)
    proxy.seen.clear()
    return made


@pytest.fixture
def uri(storage):
    return f"{storage.uri}/net.safetensors"


def gets(proxy) -> int:
    return sum(method == "GET" for method, _ in proxy.seen)


def test_a_file_is_fetched_once_and_named_by_its_content(uri, proxy, folder):
    copy = cache.fetch(uri)
    assert copy == folder / f"{SHA256}.safetensors"
    assert copy.read_bytes() == CONTENT
    assert gets(proxy) == 1
    proxy.seen.clear()
    assert cache.fetch(uri) == copy
    assert [method for method, _ in proxy.seen] == ["HEAD"]


def test_a_known_content_needs_no_network(uri, proxy):
    copy = cache.fetch(uri)
    proxy.seen.clear()
    assert cache.fetch(uri, SHA256) == copy
    assert cache.fetch("s3://elsewhere/net.safetensors", SHA256) == copy
    assert proxy.seen == []


def test_a_file_that_was_replaced_is_fetched_again(uri, storage):
    first = cache.fetch(uri)
    storage.write("net.safetensors", CONTENT[::-1])
    second = cache.fetch(uri)
    assert second.read_bytes() == CONTENT[::-1]
    assert first.read_bytes() == CONTENT  # a run that began with it goes on


def test_a_file_that_is_replaced_while_it_is_read_is_never_mixed(uri, storage, monkeypatch):
    download = cache._download

    def replaced_meanwhile(*arguments):
        found = download(*arguments)
        if storage.read("net.safetensors") == CONTENT:
            storage.write("net.safetensors", CONTENT[::-1])
        return found

    monkeypatch.setattr(cache, "_download", replaced_meanwhile)
    assert cache.fetch(uri).read_bytes() == CONTENT[::-1]


def test_processes_that_start_together_fetch_it_once(uri, proxy, folder):
    with proxy.holding("GET"):
        processes = [
            subprocess.Popen([sys.executable, "-c", FETCH, uri], stdout=subprocess.PIPE, text=True) for _ in range(4)
        ]
        while not proxy.waiting and all(process.poll() is None for process in processes):
            proxy.closing.wait(0.02)
    copies = {process.communicate()[0].strip() for process in processes}
    assert copies == {str(folder / f"{SHA256}.safetensors")}
    assert gets(proxy) == 1


def test_a_killed_download_leaves_nothing_broken(uri, proxy, folder):
    """Killed while it waits for data, with its lock held and a partial file open."""
    with proxy.holding("GET"):
        process = subprocess.Popen([sys.executable, "-c", FETCH, uri])
        while not proxy.waiting and process.poll() is None:
            proxy.closing.wait(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    left = [path.name for path in folder.iterdir() if path.is_file() and path.stat().st_size]
    assert not [name for name in left if name.endswith(".safetensors")]
    assert cache.fetch(uri).read_bytes() == CONTENT
    assert not list(folder.glob("*.partial"))


def test_a_broken_copy_is_discarded_and_nothing_else(uri, tmp_path):
    copy = cache.fetch(uri)
    assert not cache.discard_broken(copy)
    other = tmp_path / copy.name
    other.write_bytes(b"not ours")
    assert not cache.discard_broken(other)
    copy.write_bytes(CONTENT[:-1])
    assert cache.discard_broken(copy)
    assert cache.fetch(uri).read_bytes() == CONTENT


def test_a_request_that_fails_for_a_moment_is_repeated(uri, proxy):
    proxy.queue = [("HEAD", RESET_BEFORE), ("GET", RESET_BEFORE)]
    assert cache.fetch(uri).read_bytes() == CONTENT


def test_a_file_that_is_not_there_is_told(uri):
    with pytest.raises(FileNotFoundError):
        cache.fetch(uri + "x")


def test_a_cache_that_is_full_is_told(uri, small_disk, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_disk))
    with pytest.raises(StorageError, match=r"No space left.*XDG_CACHE_HOME"):
        cache.fetch(uri)


def test_a_cache_that_cannot_be_written_is_told(uri, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="XDG_CACHE_HOME"):
        cache.fetch(uri)


def test_any_address_of_fsspec_can_be_fetched(folder):
    name = uuid.uuid4().hex
    Storage(f"memory://{name}").write("net.pt", CONTENT)
    assert cache.fetch(f"memory://{name}/net.pt") == folder / f"{SHA256}.pt"


def test_the_cache_is_the_users(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", os.sep + "home")
    assert cache.cache_folder() == Path("/home/.cache/proxyclip/weights")
