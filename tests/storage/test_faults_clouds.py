"""Azure Blob Storage and Google Cloud Storage, one request at a time, behind a proxy that breaks requests."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from fault_proxy import ERROR_500, PARTIAL, RESET_AFTER, RESET_BEFORE, SLOW, SLOW_DOWN, TIMEOUT, fault_proxy

from proxyclip.storage import clients, remote, retry
from proxyclip.storage.retry import count_retries
from proxyclip.storage.store import Storage, StorageError

WRITE = {"azure": "PUT", "gcs": "POST"}


@pytest.fixture(params=["azure", "gcs"])
def kind_of_store(request):
    return request.param


@pytest.fixture
def store(kind_of_store, request):
    return request.getfixturevalue(kind_of_store)


@pytest.fixture
def proxy(store, monkeypatch, request):
    params = request.node.callspec.params
    monkeypatch.setenv("PROXYCLIP_READ_TIMEOUT_S", "0.5" if params.get("fault") == TIMEOUT else "60")
    monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.01)
    with fault_proxy(store.endpoint) as running, store.clients_at(running.url):
        remote.remote.cache_clear()
        yield running
    remote.remote.cache_clear()


@pytest.fixture
def storage(store, proxy):
    made = Storage(store.uri(f"bucket/{uuid.uuid4().hex}"))
    assert made.create("there", b"0123456789")
    proxy.seen.clear()
    return made


@pytest.mark.parametrize("fault", [ERROR_500, SLOW_DOWN, SLOW, RESET_BEFORE, RESET_AFTER, TIMEOUT])
@pytest.mark.parametrize("method", ["GET", "write"])
def test_every_request_survives_every_fault(storage, proxy, kind_of_store, fault, method):
    proxy.queue = [(WRITE[kind_of_store] if method == "write" else method, fault)] * 2
    storage.write("a/x", b"first")
    assert storage.create("a/y", b"second")
    assert not storage.create("a/y", b"third")
    assert storage.read("a/x") == b"first"
    assert storage.stat("a/y").size_bytes == 6
    assert not storage.exists("a/z")
    assert [entry.key for entry in storage.list("a")] == ["a/x", "a/y"]
    assert proxy.faults[fault] == 2


def test_half_a_body_is_not_taken_for_the_whole(storage, proxy):
    storage.write("large", bytes(range(256)) * 1000)
    proxy.queue = [("GET", PARTIAL)]
    assert storage.read("large") == bytes(range(256)) * 1000
    assert proxy.faults[PARTIAL] == 1


def test_a_503_is_retried_here_and_counted(storage, proxy):
    proxy.queue = [("GET", SLOW_DOWN)] * 3
    with count_retries() as retries:
        assert storage.read("there") == b"0123456789"
    assert [method for method, _ in proxy.seen] == ["GET"] * 4
    assert retries.count == 3


def test_a_store_that_stays_down_is_told(storage, proxy, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    remote.remote.cache_clear()
    proxy.always = SLOW_DOWN
    with pytest.raises(StorageError, match="2 at most"):
        storage.read("there")


def test_of_many_writers_one_wins(storage):
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: storage.create("one", b"%d" % number), range(8)))
    assert sum(won) == 1
    assert storage.read("one") == b"%d" % won.index(True)


def test_a_listing_comes_page_by_page(storage, proxy, monkeypatch):
    monkeypatch.setattr(clients, "PAGE_KEYS", 3)
    for number in range(8):
        storage.write(f"many/{number}", b"x")
    storage.write("many.txt", b"x")
    proxy.seen.clear()
    proxy.queue = [("GET", SLOW_DOWN)]
    assert [entry.key for entry in storage.list("many")] == [f"many/{number}" for number in range(8)]
    assert len(proxy.seen) == 4  # three pages, one of them twice


def test_a_bucket_that_is_not_there_is_told(proxy, store):
    nowhere = Storage(f"{store.protocol}://nowhere/prefix")
    for attempt in (nowhere.check_writable, lambda: nowhere.write("x", b"")):
        with pytest.raises(StorageError, match="create the bucket"):
            attempt()


def test_a_store_that_ignores_the_condition_is_refused(store, proxy):
    """The real server, behind a proxy that takes the condition out of the request."""
    proxy.unconditional = True
    condition = "If-None-Match" if store.protocol == "az" else "ifGenerationMatch=0"
    with store.clients_at(proxy.url, signed=False):
        remote.remote.cache_clear()
        storage = Storage(store.uri(f"bucket/{uuid.uuid4().hex}"))
        with pytest.raises(StorageError, match=condition):
            storage.check_writable()
        assert list(storage.list()) == []
        with pytest.raises(StorageError, match="ignores conditional writes"):
            storage.create("x", b"data")
