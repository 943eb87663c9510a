"""Inputs that are tar files, as WebDataset and img2dataset write them, on disk and in a real S3 server."""

import io
import os
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import webdataset

from proxyclip.images.errors import ImageError
from proxyclip.images.inputs import tars
from proxyclip.images.inputs.images import fetch_image, open_images
from proxyclip.images.listing import list_images
from proxyclip.storage.store import Storage, StorageError


def image(number):
    return f"image {number} ".encode() * (number % 7 + 1)


def to_tar(members, **options):
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w", **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def samples(numbers):
    """A picture with its caption and a record, as img2dataset keeps them."""
    for number in numbers:
        yield f"{number:06d}.jpg", image(number)
        yield f"{number:06d}.json", b"{}" * 300
        yield f"{number:06d}.txt", b"a caption"


def fetched(address):
    """What a read task gets: bytes, or the reason why there are none, by uri."""
    refs = list(list_images(address))
    with ThreadPoolExecutor(4) as pool:
        found = open_images(address).fetch(pool, refs)
    return {
        ref.uri: each.reason if isinstance(each, ImageError) else each for ref, each in zip(refs, found, strict=True)
    }


def test_members_are_named_by_tar_file_and_name(place):
    place.write("train/00000.tar", to_tar(samples(range(10))))
    place.write("train/00001.tar", to_tar(samples(range(10, 15))))
    wanted = {f"{number // 10:05d}.tar!{number:06d}.jpg": image(number) for number in range(15)}
    for pattern in ("{00000..00001}.tar", "*.tar"):
        assert fetched(f"{place.uri}/train/{pattern}") == wanted
    assert fetched(f"{place.uri}/train/00001.tar") == dict(list(wanted.items())[10:])
    assert fetched(place.uri) == {f"train/{uri}": data for uri, data in wanted.items()}
    images = open_images(place.uri)
    assert fetch_image(images, "train/00001.tar!000012.jpg") == image(12)
    assert fetch_image(pickle.loads(pickle.dumps(images)), "train/00001.tar!000012.jpg") == image(12)
    assert images.exists("train/00001.tar!000012.jpg")
    assert not images.exists("train/00002.tar!000012.jpg")


def test_what_webdataset_writes_is_read(tmp_path):
    with webdataset.ShardWriter(f"{tmp_path}/%05d.tar", maxcount=4, verbose=0) as writer:
        for number in range(10):
            writer.write({"__key__": f"dir/{number:04d}", "jpg": image(number), "cls": number})
    assert fetched(f"{tmp_path}/{{00000..00002}}.tar") == {
        f"{number // 4:05d}.tar!dir/{number:04d}.jpg": image(number) for number in range(10)
    }


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_that_tar_files_allow(place, form):
    names = ["./a.jpg", "b/c d.JPG", "x" * 90 + ".jpg", "/root.png"]
    if form != tarfile.USTAR_FORMAT:
        names += ["long/" + "y" * 200 + ".jpg", "caf\u00e9.jpg", "\u5716.jpg"]
    hidden = [("._a.jpg", b""), ("__MACOSX/.b.jpg", b""), ("notes.txt", b"")]
    place.write("t.tar", to_tar([*((name, name.encode()) for name in names), *hidden], format=form))
    assert fetched(f"{place.uri}/t.tar") == {f"t.tar!{name.removeprefix('./')}": name.encode() for name in names}


def test_a_folder_packed_with_links_is_read(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"a")
    os.link(tmp_path / "in" / "a.jpg", tmp_path / "in" / "b.jpg")
    (tmp_path / "in" / "c.jpg").symlink_to("a.jpg")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            tar.add(tmp_path / "in" / name, f"./{name}")
    assert fetched(f"{tmp_path}/t.tar") == {"t.tar!a.jpg": b"a", "t.tar!b.jpg": b"a"}


def test_of_members_with_one_name_the_last_counts_as_when_unpacked(place):
    place.write("t.tar", to_tar([("a.jpg", b"old"), ("b.jpg", b"b"), ("./a.jpg", b"newer")]))
    assert fetched(f"{place.uri}/t.tar") == {"t.tar!a.jpg": b"newer", "t.tar!b.jpg": b"b"}


DAMAGE = {
    "cut off within a member": lambda data, at: data[: at + 700],
    "cut off behind a member": lambda data, at: data[:at],
    "zeros in place of a header, then more": lambda data, at: data[:at] + b"\xff" * 512 + data[at + 512 :],
    "a header with another sum": lambda data, at: data[: at + 3] + b"#" + data[at + 4 :],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_tar_file_gives_what_is_before_the_damage_and_one_failure(place, damage):
    data = to_tar(samples(range(12)))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        at = tar.getmember("000005.jpg").offset
    # Members are of one block; a large one makes the cut fall into its data.
    big = to_tar([*samples(range(5)), ("000005.jpg", bytes(5000)), *samples(range(6, 12))])
    place.write("b.tar", DAMAGE[damage](big, at))
    place.write("a.tar", data)
    found = fetched(f"{place.uri}/*.tar")
    whole = {f"a.tar!{number:06d}.jpg": image(number) for number in range(12)}
    before = {f"b.tar!{number:06d}.jpg": image(number) for number in range(5)}
    reason = found.pop("b.tar!")
    assert found == whole | before
    assert reason.startswith("the tar file b.tar is damaged at byte ")
    assert reason == fetched(f"{place.uri}/*.tar")["b.tar!"]
    place.write("b.tar", big)
    assert len(fetched(f"{place.uri}/*.tar")) == 24


def test_an_input_of_damaged_files_only_is_refused(place):
    place.write("t.tar", b"not a tar file at all, but long enough" * 100)
    place.write("empty.tar", b"")
    for name in ("t.tar", "*.tar"):
        with pytest.raises(ValueError, match=r"the tar file \w+\.tar is damaged at byte 0 of"):
            list_images(f"{place.uri}/{name}")


def test_a_tar_file_that_was_made_again_is_read_as_it_is_now(place):
    place.write("t.tar", to_tar(samples(range(5))))
    address = f"{place.uri}/t.tar"
    refs = list(list_images(address))
    place.write("t.tar", to_tar([("first.jpg", bytes(3000)), *samples(range(4))]))
    with ThreadPoolExecutor(2) as pool:
        found = open_images(address).fetch(pool, refs)
    assert found[:4] == [image(number) for number in range(4)]
    assert isinstance(found[4], ImageError)
    assert "has no member 000004.jpg any more" in found[4].reason
    assert {ref.etag for ref in refs}.isdisjoint(ref.etag for ref in list_images(address))
    place.delete("t.tar")
    with ThreadPoolExecutor(2) as pool:
        assert {each.reason for each in open_images(address).fetch(pool, refs)} == {
            "no such file; it was removed after it was listed, or is a dead link"
        }


def test_neighbours_are_read_with_one_request(place, monkeypatch):
    place.write("t.tar", to_tar(samples(range(40))))
    reads = []
    real = Storage.read_range
    monkeypatch.setattr(Storage, "read_range", lambda *args: reads.append(args[2:]) or real(*args))
    assert list(fetched(f"{place.uri}/t.tar").values()) == [image(number) for number in range(40)]
    assert len(reads) == 1
    monkeypatch.setattr(tars, "_GAP_BYTES", 0)
    reads.clear()
    fetched(f"{place.uri}/t.tar")
    assert len(reads) == 40
    monkeypatch.setattr(tars, "_GAP_BYTES", 2**18)
    monkeypatch.setattr(tars, "_REQUEST_BYTES", 10_000)
    reads.clear()
    fetched(f"{place.uri}/t.tar")
    assert max(end - start for start, end in reads) <= 10_000
    assert 5 < len(reads) < 20


def test_an_index_is_made_once_for_all_threads(place, monkeypatch):
    place.write("t.tar", to_tar(samples(range(40))))
    made = []
    real = tars.index_tar
    monkeypatch.setattr(tars, "index_tar", lambda *args: made.append(1) or real(*args))
    images = open_images(place.uri)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(images.read, [f"t.tar!{number:06d}.jpg" for number in range(40)]))
    assert found == [image(number) for number in range(40)]
    assert made == [1]


def test_large_members_are_skipped_when_a_store_is_indexed(s3, monkeypatch):
    storage = Storage(s3.uri("bucket/large"))
    storage.write("t.tar", to_tar((f"{number}.png", bytes(3 * 2**20)) for number in range(4)))
    from proxyclip.storage.remote import Remote

    read = []
    real = Remote.read_range
    monkeypatch.setattr(
        Remote, "read_range", lambda self, key, start, end: read.append(end - start) or real(self, key, start, end)
    )
    assert len(list_images(storage.uri)) == 4
    assert sum(read) < 8 * 2**20  # of 12
    assert len(read) <= 8


def test_tar_files_beside_images_are_not_read_and_this_is_said(place, caplog):
    place.write("a.jpg", b"a")
    place.write("t.tar", to_tar(samples(range(3))))
    place.write("t.parquet", b"labels of some kind")
    assert [ref.uri for ref in list_images(place.uri)] == ["a.jpg"]
    assert "1 tar files lie among the images and are not read" in caplog.text


def test_a_file_named_like_a_member_is_refused(place):
    place.write("t.tar!a.jpg", b"a")
    with pytest.raises(ValueError, match="looks like a member of a tar file"):
        list_images(place.uri)


def test_a_store_that_fails_is_not_blamed_on_the_members(place, monkeypatch):
    place.write("t.tar", to_tar(samples(range(3))))
    refs = list(list_images(place.uri))

    def fails(*args):
        raise StorageError("down")

    monkeypatch.setattr(Storage, "read_range", fails)
    with ThreadPoolExecutor(2) as pool, pytest.raises(StorageError, match="down"):
        open_images(place.uri).fetch(pool, refs)


def test_members_that_may_not_be_read_fail_for_that_reason(place, monkeypatch):
    place.write("t.tar", to_tar(samples(range(3))))
    refs = list(list_images(place.uri))

    def fails(*args):
        raise PermissionError(13, "access denied")

    monkeypatch.setattr(Storage, "read_range", fails)
    with ThreadPoolExecutor(2) as pool:
        assert {each.reason for each in open_images(place.uri).fetch(pool, refs)} == {"access denied"}
