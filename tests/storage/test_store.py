import os
import pickle
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from proxyclip.storage import store
from proxyclip.storage.store import Storage, StorageError, public_uri


@pytest.fixture(params=["disk", "memory", "s3", "azure", "gcs"])
def storage(request, tmp_path):
    if request.param == "disk":
        return Storage(str(tmp_path / "out"))
    if request.param == "memory":
        return Storage(f"memory://{uuid.uuid4().hex}")
    return Storage(request.getfixturevalue(request.param).uri(f"bucket/{uuid.uuid4().hex}/out"))


ODD_KEYS = [
    "a b.jpg",
    "ünïcode/図.png",
    "line\nbreak.jpg",
    "100%.jpg",
    "%2e%2e.jpg",
    "a#b?c=d.jpg",
    "star*[x]?.jpg",
    "plus+and&.jpg",
    "deep/er/and/deeper/x.jpg",
    ".hidden/.x",
    "file:x.jpg",
    "~x/y.jpg",
    "q?version=3.jpg",
]


def test_what_was_written_is_read_and_listed(storage):
    azurite = storage.uri.startswith("az:")  # its listings lose line breaks
    odd_keys = [key for key in ODD_KEYS if not (azurite and "\n" in key)]
    for number, key in enumerate(odd_keys):
        storage.write(key, b"x" * number)
    for number, key in enumerate(odd_keys):
        assert storage.exists(key), key
        assert storage.read(key) == b"x" * number
        assert storage.stat(key).size_bytes == number
        with storage.open(key) as file:
            assert file.read() == b"x" * number
    listed = list(storage.list())
    assert [entry.key for entry in listed] == sorted(odd_keys)
    assert {entry.key: entry.size_bytes for entry in listed} == {key: n for n, key in enumerate(odd_keys)}
    if "memory" not in storage.uri:  # fsspec's toy store tells two different times
        assert [storage.stat(entry.key) for entry in listed] == listed


def test_a_local_file_is_copied_whatever_its_size(storage, tmp_path):
    source = tmp_path / "source"
    for size in (0, 1000, 2**20 + 1):
        source.write_bytes(os.urandom(size))
        storage.write_file("deep/copy", source)
        assert storage.read("deep/copy") == source.read_bytes()
    assert [entry.key for entry in storage.list()] == ["deep/copy"]


def test_a_folder_lists_its_own_files_only(storage):
    for key in ("a/1", "a/b/2", "ab/3", "a.4", "c"):
        storage.write(key, b"")
    assert [entry.key for entry in storage.list("a")] == ["a/1", "a/b/2"]
    assert [entry.key for entry in storage.list("a/")] == ["a/1", "a/b/2"]
    assert list(storage.list("c")) == []
    assert list(storage.list("missing")) == []
    assert not storage.exists("a")
    assert not storage.exists("missing")
    assert not storage.exists("c/below-a-file")


def test_writing_replaces_and_changes_the_etag(storage):
    storage.write("x", b"one")
    before = storage.stat("x").etag
    storage.write("x", b"two!")
    assert storage.read("x") == b"two!"
    assert storage.stat("x").etag != before


def test_a_missing_key_is_named(storage):
    for method in (storage.read, storage.stat):
        with pytest.raises(FileNotFoundError, match=r"no/such\.jpg"):
            method("no/such.jpg")


def test_create_does_not_touch_what_is_there(storage):
    assert storage.create("x", b"first")
    assert not storage.create("x", b"second")
    assert storage.read("x") == b"first"


def test_of_many_creators_exactly_one_wins(storage):
    with ThreadPoolExecutor(4) as pool:
        for round_ in range(2):
            key = f"commits/{round_}"
            won = list(pool.map(lambda n, key=key: storage.create(key, b"%d" % n), range(4)))
            assert sum(won) == 1
            assert storage.read(key) == b"%d" % won.index(True)
    assert len(list(storage.list())) == 2


def test_a_store_that_overwrites_what_it_must_keep_is_refused(rclone):
    storage = Storage(rclone.uri(f"bucket/{uuid.uuid4().hex}"))
    storage.write("run.json", b"of another run")
    for key in ("run.json", "new.json"):
        with pytest.raises(StorageError, match="ignores conditional writes"):
            storage.create(key, b"ours")
    assert storage.read("run.json") == b"of another run"


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_of_two_creating_processes_exactly_one_wins(kind, tmp_path, request):
    uri = str(tmp_path) if kind == "disk" else request.getfixturevalue("s3").uri(f"bucket/{uuid.uuid4().hex}")
    code = (
        "import sys; from proxyclip.storage.store import Storage; s = Storage(sys.argv[1]); s.exists('warm'); "
        "print('ready', flush=True); sys.stdin.readline(); print(s.create('x', sys.argv[2].encode()))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, uri, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for name in ("one", "two")
    ]
    for process in both:
        assert process.stdout.readline() == b"ready\n"
    for process in both:
        process.stdin.write(b"go\n")
        process.stdin.flush()
    won = [process.communicate(timeout=300)[0].strip() for process in both]
    assert sorted(won) == [b"False", b"True"]
    assert Storage(uri).read("x") == (b"one", b"two")[won.index(b"True")]


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a/..", "nul\0l"])
def test_no_key_leads_out(storage, key):
    for method in (storage.read, storage.stat, storage.exists, lambda k: storage.write(k, b"")):
        with pytest.raises(ValueError, match=r"relative path without"):
            method(key)


def test_a_storage_travels_as_its_uri(storage):
    storage.write("x", b"here")
    storage.read("x")
    data = pickle.dumps(storage)
    assert len(data) < 500
    assert pickle.loads(data).read("x") == b"here"


def test_a_path_is_made_absolute_and_tidy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wanted = Storage(str(tmp_path / "a"))
    assert Storage("a/") == Storage("./b/../a") == Storage(f"file://{tmp_path}/a") == wanted
    assert Storage("/").uri == "/"
    assert Storage("s3://bucket/prefix/").uri == "s3://bucket/prefix"


@pytest.mark.parametrize("uri", ["", "s3://", "s3:///prefix", "a\0b"])
def test_a_uri_without_a_place_is_refused(uri):
    with pytest.raises(ValueError, match="storage: "):
        Storage(uri)


def test_an_unknown_protocol_is_named():
    with pytest.raises(ValueError, match=r"nosuch://x.*Protocol not known"):
        Storage("nosuch://x").exists("y")


def test_credentials_are_never_shown():
    assert public_uri("s3://AKIA:secret@bucket/prefix?X-Amz-Signature=secret") == "s3://bucket/prefix"
    assert public_uri("abfs://container@account.dfs.core.windows.net/x?sig=1") == (
        "abfs://container@account.dfs.core.windows.net/x"
    )
    assert public_uri("/data/a?b@c") == "/data/a?b@c"
    assert "secret" not in repr(Storage("s3://bucket/prefix?X-Amz-Signature=secret"))
    with pytest.raises(ValueError, match="contains a password") as caught:
        Storage("s3://AKIA:secret@bucket/prefix")
    assert "secret@" not in str(caught.value)


def test_readers_on_disk_never_see_half_a_file(tmp_path, monkeypatch):
    storage = Storage(str(tmp_path))
    storage.write("x", b"old")

    def broken(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", broken)
    for method in (storage.write, storage.create):
        with pytest.raises(OSError, match="disk full"):
            method("x", b"new")
    assert storage.read("x") == b"old"
    assert os.listdir(tmp_path) == ["x"]  # noqa: PTH208  (nothing temporary is left)


def test_what_a_killed_writer_left_is_not_listed(tmp_path):
    code = (
        "import os, sys; from proxyclip.storage.store import Storage; os.fsync = lambda _: os._exit(9); "
        "Storage(sys.argv[1]).write('a/x', b'half')"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    assert len(os.listdir(tmp_path / "a")) == 1  # noqa: PTH208
    assert list(Storage(str(tmp_path)).list()) == []


def test_a_disk_without_hard_links_says_so(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StorageError, match="has no hard links"):
        Storage(str(tmp_path)).create("x", b"")


def test_links_are_followed_but_not_in_circles(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_bytes(b"1")
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "real")
    (root / "circle").symlink_to(root)
    (root / "gone").symlink_to(tmp_path / "nothing")
    os.mkfifo(root / "pipe")
    assert [(entry.key, entry.size_bytes) for entry in Storage(str(root)).list()] == [("gone", 0), ("linked/x", 1)]


def test_a_missing_bucket_is_named(s3):
    missing = Storage("s3://no-such-bucket/prefix")
    for method in (missing.exists, missing.read, lambda key: missing.create(key, b"")):
        with pytest.raises(StorageError, match=r"no-such-bucket.*does not exist; create the bucket"):
            method("x")
    with pytest.raises(StorageError, match="does not exist"):
        list(missing.list())


def in_a_new_process(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)


def test_wrong_credentials_say_which_variables_to_set(s3):
    uri = s3.uri(f"bucket/{uuid.uuid4().hex}")
    code = f"from proxyclip.storage.store import Storage; Storage({uri!r}).write('x', b'')"
    said = in_a_new_process(code, AWS_ACCESS_KEY_ID="unknown", AWS_SECRET_ACCESS_KEY="hush-hush").stderr
    assert "StorageError" in said.splitlines()[-1]
    assert "AWS_ACCESS_KEY_ID" in said.splitlines()[-1]
    assert "hush-hush" not in said


def test_an_endpoint_that_is_down_is_named_in_bounded_time(s3):
    code = "from proxyclip.storage.store import Storage; Storage('s3://bucket/x').read('x')"
    said = in_a_new_process(code, AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_MAX_ATTEMPTS="2").stderr
    assert "StorageError" in said.splitlines()[-1]
    assert "AWS_ENDPOINT_URL" in said.splitlines()[-1]


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "FSSPEC_S3_ENDPOINT_URL"])
def test_the_usual_variables_name_the_endpoint(s3, variable):
    storage = Storage(s3.uri(f"bucket/{uuid.uuid4().hex}"))
    storage.write("x", b"found")
    code = f"from proxyclip.storage.store import Storage; print(Storage({storage.uri!r}).read('x'))"
    others = dict.fromkeys(["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "FSSPEC_S3_ENDPOINT_URL"], "")
    env = {key: value for key, value in {**others, variable: s3.endpoint}.items() if value}
    clean = {key: value for key, value in os.environ.items() if key not in others}
    done = subprocess.run([sys.executable, "-c", code], env=clean | env, capture_output=True, text=True, timeout=300)
    assert done.stdout == "b'found'\n", done.stderr


def test_only_one_module_touches_fsspec():
    package = Path(store.__file__).parents[1]
    users = {path.name for path in package.rglob("*.py") if "import fsspec" in path.read_text()}
    assert users == {"clients.py"}


def test_what_was_deleted_is_gone_and_deleting_it_again_is_fine(storage):
    storage.write("a/x", b"1")
    storage.delete("a/x")
    assert not storage.exists("a/x")
    assert list(storage.list()) == []
    storage.delete("a/x")
    storage.delete("never/was")


def test_a_storage_that_can_be_written_passes_the_check_and_is_left_as_it_was(storage, tmp_path):
    storage.check_writable()
    assert os.listdir(tmp_path) == []  # noqa: PTH208  (the folder of the output is not created either)
    storage.write("a/x", b"1")
    storage.check_writable()
    assert [entry.key for entry in storage.list()] == ["a/x"]
    assert everything(storage) == ["a/x"]


def everything(storage: Storage) -> list[str]:
    """All keys, also those that listings leave out."""
    fs, root = fsspec.core.url_to_fs(storage.uri, skip_instance_cache=True)
    return sorted(path[len(root) + 1 :] for path in fs.find(root))


def test_a_folder_whose_parents_do_not_exist_can_be_written(tmp_path):
    Storage(str(tmp_path / "a" / "b" / "c")).check_writable()
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.parametrize("below", ["", "/out", "/deeper/out"])
def test_a_file_in_the_way_of_the_output_is_named(tmp_path, below):
    (tmp_path / "file").write_bytes(b"")
    uri = f"{tmp_path}/file{below}"
    with pytest.raises(StorageError, match=rf"{uri}: {tmp_path}/file is not a folder"):
        Storage(uri).check_writable()


def test_a_dead_link_in_the_way_of_the_output_is_named(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "missing")
    with pytest.raises(StorageError, match="link is not a folder"):
        Storage(f"{tmp_path}/link/out").check_writable()


@pytest.mark.parametrize("below", ["", "/out"])
def test_a_folder_without_permission_is_refused(below):
    code = (
        "import os, sys; from proxyclip.storage.store import Storage; "
        "os.getuid() or os.setuid(65534); Storage(sys.argv[1]).check_writable()"  # root may write everywhere
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        done = subprocess.run([sys.executable, "-c", code, folder + below], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        f"PermissionError: storage: {folder}{below}: cannot create files in {folder}: Permission denied; "
        "choose another folder, or change its permissions."
    )


def test_a_store_that_ignores_conditional_writes_fails_the_check(rclone):
    storage = Storage(rclone.uri(f"bucket/{uuid.uuid4().hex}"))
    with pytest.raises(StorageError, match="ignores conditional writes"):
        storage.check_writable()
    assert everything(storage) == []


def test_a_missing_bucket_fails_the_check(s3):
    with pytest.raises(StorageError, match=r"no-such-bucket.*create the bucket"):
        Storage("s3://no-such-bucket/prefix").check_writable()


def test_an_entry_says_when_it_was_written(storage):
    before = int(time.time())
    storage.write("x", b"1")
    (entry,) = storage.list()
    assert before - 1 <= entry.modified_s <= time.time() + 1
