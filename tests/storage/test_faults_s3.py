"""What object stores do, one request at a time: a real server behind a proxy that breaks requests."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from fault_proxy import DENIED, ERROR_500, PARTIAL, RESET_AFTER, RESET_BEFORE, SLOW, SLOW_DOWN, TIMEOUT, fault_proxy

from proxyclip.dataset.commits import read_commit
from proxyclip.dataset.manifest import Manifest, PlanSummary
from proxyclip.dataset.run_record import RunRecord, begin_run
from proxyclip.dataset.shards import Failure, write_shard
from proxyclip.images.listing import ImageRef, fetch_image
from proxyclip.storage import clients, retry
from proxyclip.storage.retry import count_retries
from proxyclip.storage.store import Storage, StorageError
from proxyclip.vocabulary.names import Vocabulary


@pytest.fixture
def proxy(s3, monkeypatch, request):
    """Storages first used in the test go through it. Clients wait long unless the test is about clients that do not."""
    params = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    read_timeout_s = 0.5 if params.get("kind") == TIMEOUT else 60
    with fault_proxy(s3.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        monkeypatch.setenv("PROXYCLIP_READ_TIMEOUT_S", str(read_timeout_s))
        monkeypatch.setattr(retry, "FIRST_DELAY_S", 0.01)
        yield running


@pytest.fixture
def storage(s3, proxy):
    """A prefix of its own, once a request has got through."""
    made = Storage(s3.uri(f"bucket/{uuid.uuid4().hex}"))
    assert made.create("there", b"0123456789")
    proxy.seen.clear()
    return made


@pytest.mark.parametrize("kind", [ERROR_500, SLOW_DOWN, SLOW, RESET_BEFORE, RESET_AFTER, TIMEOUT])
@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD"])
def test_every_request_survives_every_fault(storage, proxy, kind, method):
    proxy.queue = [(method, kind)] * 2
    storage.write("a/x", b"first")
    assert storage.create("a/y", b"second")
    assert not storage.create("a/y", b"third")
    assert storage.read("a/x") == b"first"
    assert storage.stat("a/y").size_bytes == 6
    assert not storage.exists("a/z")
    assert [entry.key for entry in storage.list("a")] == ["a/x", "a/y"]
    assert proxy.faults[kind] == 2


def test_a_503_is_retried_and_counted(storage, proxy):
    proxy.queue = [("GET", SLOW_DOWN)] * 3
    with count_retries() as retries:
        assert storage.read("there") == b"0123456789"
    assert [method for method, _ in proxy.seen] == ["GET"] * 4
    assert retries.count == 3


def test_a_slow_store_is_waited_for(storage, proxy):
    proxy.queue = [("GET", SLOW)]
    with count_retries() as retries:
        assert storage.read("there") == b"0123456789"
    assert retries.count == 0


def test_a_partial_read_is_read_again(storage, proxy):
    proxy.queue = [("GET", PARTIAL)] * 2
    with count_retries() as retries:
        assert storage.read("there") == b"0123456789"
        proxy.queue = [("GET", PARTIAL)] * 2
        with storage.open("there") as file:
            file.seek(-4, 2)
            assert file.read() == b"6789"
    assert (proxy.faults[PARTIAL], retries.count) == (4, 4)


def test_retries_of_a_file_read_in_another_thread_count_where_it_was_opened(storage, proxy):
    """Parquet readers read in threads of their own."""
    with ThreadPoolExecutor(1) as pool, count_retries() as retries, storage.open("there") as file:
        proxy.queue = [("GET", PARTIAL)] * 2
        assert pool.submit(file.read).result() == b"0123456789"
    assert retries.count == 2


@pytest.mark.parametrize("kind", [RESET_AFTER, TIMEOUT])
def test_a_lost_answer_to_the_commit_is_not_another_writer(storage, proxy, kind):
    proxy.queue = [("PUT", kind)]
    assert storage.create("x", b"ours")
    assert proxy.faults[kind] == 1
    proxy.queue = [("PUT", kind)]
    assert not storage.create("x", b"theirs")
    assert storage.read("x") == b"ours"


def test_a_lost_answer_to_a_commit_gives_the_commit(storage, proxy):
    proxy.queue = [("PUT", RESET_AFTER)] * 4
    commit = write_shard(storage, 3, [], [Failure("a.jpg", "fetch", "fetch_failed", "gone")], ["sky"])
    assert proxy.faults[RESET_AFTER] == 4
    assert commit == read_commit(storage, 3)


@pytest.mark.parametrize("kind", [RESET_AFTER, TIMEOUT])
def test_a_lost_answer_to_the_plan_plans_each_image_once(storage, proxy, kind):
    manifest = Manifest(storage)
    proxy.queue = [("PUT", kind)]
    begin_run(storage, RunRecord("/data", {}, "f1"), Vocabulary.from_names(["sky"]).to_json())
    proxy.queue = [("PUT", kind)]
    assert manifest.extend_plan([ImageRef(f"{n}.jpg", 1, "") for n in range(5)], 2) == PlanSummary(5, 3, 3, 5, 0, 0)
    assert proxy.faults[kind] == 2
    assert [part.num_images for part in manifest.plan.parts()] == [5]
    assert manifest.extend_plan([ImageRef(f"{n}.jpg", 1, "") for n in range(5)], 2) == PlanSummary(5, 3, 0, 0, 0, 0)


def test_a_long_listing_goes_on_where_it_broke(storage, proxy, monkeypatch):
    monkeypatch.setattr(clients, "PAGE_KEYS", 3)
    keys = [f"a/{number}" for number in range(10)]
    for key in keys:
        storage.write(key, b"")
    proxy.seen.clear()
    proxy.queue = [("GET", SLOW_DOWN), ("GET", RESET_AFTER), ("GET", PARTIAL), ("GET", ERROR_500)]
    assert [entry.key for entry in storage.list("a")] == keys
    assert not proxy.queue
    assert len(proxy.seen) == 4 + 4  # pages and faults


@pytest.mark.parametrize("kind", [ERROR_500, SLOW_DOWN, RESET_BEFORE, TIMEOUT, PARTIAL])
def test_retries_are_bounded_when_the_store_stays_down(s3, proxy, monkeypatch, kind):
    """One layer retries: the requests are as many as its attempts, not its attempts times another's."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "3")
    storage = Storage(s3.uri(f"bucket/{uuid.uuid4().hex}"))
    storage.write("x", b"0123456789")
    proxy.seen.clear()
    proxy.always = kind
    with count_retries() as retries, pytest.raises(StorageError, match=r"storage: s3://bucket/.*3 at most"):
        storage.read("x")
    twice = 2 if kind == RESET_BEFORE else 1  # aiohttp sends again by itself when a connection breaks
    assert len(proxy.seen) == 3 * twice
    assert retries.count == 2
    with pytest.raises(StorageError):
        fetch_image(storage, "x")


def test_no_try_begins_after_the_time_is_up(storage, proxy, monkeypatch):
    monkeypatch.setattr(retry, "GIVE_UP_AFTER_S", 0.0)
    proxy.always = SLOW_DOWN
    with pytest.raises(StorageError, match="SlowDown"):
        storage.read("there")
    assert len(proxy.seen) == 1


def test_what_cannot_pass_is_asked_once(storage, proxy, monkeypatch):
    with count_retries() as retries:
        with pytest.raises(FileNotFoundError):
            storage.read("missing")
        with pytest.raises(StorageError, match="NoSuchBucket"):
            Storage(f"s3://no-such-bucket/{uuid.uuid4().hex}").create("x", b"")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "unknown")
        with pytest.raises(StorageError, match="InvalidAccessKeyId"):
            Storage(f"{storage.uri}/other").read("x")
    assert [method for method, _ in proxy.seen] == ["GET"] * 3
    assert retries.count == 0


@pytest.mark.parametrize("kind", [ERROR_500, RESET_AFTER, PARTIAL])
def test_the_check_that_files_can_be_written_survives_faults(s3, proxy, kind):
    storage = Storage(s3.uri(f"bucket/{uuid.uuid4().hex}"))
    proxy.queue = [("GET" if kind == PARTIAL else "PUT", kind)] * 2
    proxy.seen.clear()
    storage.check_writable()
    assert [method for method, _ in proxy.seen if method == "DELETE"] == ["DELETE"]
    assert len(proxy.seen) <= 4 + 2  # requests and faults


def test_credentials_that_must_not_write_are_refused(s3, proxy):
    storage = Storage(s3.uri(f"bucket/{uuid.uuid4().hex}"))
    proxy.always = DENIED
    with pytest.raises(PermissionError, match=rf"{storage.uri}: cannot create .*AccessDenied.* another prefix"):
        storage.check_writable()
    assert [method for method, _ in proxy.seen] == ["PUT"]


def test_credentials_that_must_not_delete_may_write(s3, proxy):
    storage = Storage(s3.uri(f"bucket/{uuid.uuid4().hex}"))
    proxy.queue = [("PUT", SLOW), ("GET", SLOW), ("PUT", SLOW), ("DELETE", DENIED)]
    storage.check_writable()
    assert proxy.faults[DENIED] == 1
    assert list(storage.list()) == []


@pytest.mark.parametrize("name", ["AWS_MAX_ATTEMPTS", "PROXYCLIP_READ_TIMEOUT_S"])
@pytest.mark.parametrize("value", ["many", "0", "-1"])
def test_a_bad_setting_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name} is '{value}', which is not a number above 0"):
        Storage(f"s3://bucket/{uuid.uuid4().hex}").exists("x")
