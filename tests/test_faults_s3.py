"""What object stores do, against a real one behind a proxy that breaks requests."""

from __future__ import annotations

import time
import uuid

import pytest
from fault_proxy import (
    ERROR_500,
    PARTIAL,
    RESET_AFTER,
    RESET_BEFORE,
    SLOW,
    SLOW_DOWN,
    TIMEOUT,
    fault_proxy,
)

from proxyclip.dataset import remote, retry
from proxyclip.dataset.images import ImageRef, fetch_image
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.retry import take_retries
from proxyclip.dataset.shards import LabelledImage, read_commit, write_shard
from proxyclip.dataset.store import Storage, StorageError


@pytest.fixture
def proxy(s3, monkeypatch):
    """Storages first used in the test go through it."""
    with fault_proxy(s3.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        monkeypatch.setenv("PROXYCLIP_READ_TIMEOUT_S", "0.5")
        monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.01)
        take_retries()
        yield running


@pytest.fixture
def storage(s3, proxy):
    return Storage(s3.uri(f"bucket/{uuid.uuid4().hex}"))


def every_request(storage: Storage) -> None:
    """All that a storage does, and what must come of it."""
    storage.write("a/x", b"first")
    assert storage.create("a/y", b"second")
    assert not storage.create("a/y", b"third")
    assert storage.read("a/x") == b"first"
    assert storage.stat("a/y").size_bytes == 6
    assert not storage.exists("a/z")
    with storage.open("a/y") as file:
        file.seek(-3, 2)
        assert file.read() == b"ond"
    assert [entry.key for entry in storage.list("a")] == ["a/x", "a/y"]


@pytest.mark.parametrize("kind", [ERROR_500, SLOW_DOWN, SLOW, RESET_BEFORE, RESET_AFTER, TIMEOUT])
@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD"])
def test_every_kind_of_request_survives(storage, proxy, kind, method):
    storage.exists("warm")
    proxy.queue = [(method, kind)] * 3
    every_request(storage)
    assert proxy.faults[kind] == 3 or (kind, method) == (RESET_AFTER, "HEAD")
