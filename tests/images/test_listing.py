"""Listing and fetching the images of an input, on disk and in a real S3 server."""

import os
import uuid

import pytest

from proxyclip.images.errors import ImageError
from proxyclip.images.listing import fetch_image, input_storage, list_images
from proxyclip.storage.store import Storage, StorageError


@pytest.fixture(params=["disk", "s3"])
def uri(request, tmp_path):
    if request.param == "disk":
        return str(tmp_path / "in")
    return request.getfixturevalue("s3").uri(f"bucket/{uuid.uuid4().hex}/in")


def fill(uri, *keys):
    for key in keys:
        Storage(uri).write(key, key.encode())


def uris(*args, **options):
    return [image.uri for image in list_images(*args, **options)]


def test_images_are_told_by_extension_and_sorted(uri):
    fill(
        uri,
        "b.JPG",
        "a/c.jpeg",
        "a/b/d.png",
        "e.webp",
        "f.bmp",
        "g.gif",
        "h.tif",
        "i.TIFF",
        "notes.txt",
        "jpg",
        "x.jpg.txt",
    )
    listed = list(list_images(uri))
    assert [image.uri for image in listed] == [
        *("a/b/d.png", "a/c.jpeg", "b.JPG", "e.webp", "f.bmp", "g.gif", "h.tif", "i.TIFF")
    ]
    assert listed[0].size_bytes == len("a/b/d.png")
    assert all(image.etag for image in listed)


def test_hidden_files_and_folders_are_left_out(uri):
    fill(uri, "a.jpg", ".b.jpg", ".thumbs/c.jpg", "d/.e/f.jpg", "g/._h.jpg", "i.j/k.jpg")
    assert uris(uri) == ["a.jpg", "i.j/k.jpg"]


def test_a_folder_named_like_an_image_is_a_folder(uri):
    fill(uri, "album.jpg/a.jpg", "album.jpg/b.txt")
    assert uris(uri) == ["album.jpg/a.jpg"]
    assert uris(f"{uri}/album.jpg") == ["a.jpg"]


def test_a_single_image_is_an_input_too(uri):
    fill(uri, "a/b c.jpg", "a/other.jpg")
    one = f"{uri}/a/b c.jpg"
    assert uris(one) == ["b c.jpg"]
    assert fetch_image(input_storage(one), "b c.jpg") == b"a/b c.jpg"
    assert input_storage(uri) == Storage(uri)


@pytest.mark.parametrize("output", ["out", "out/", "x/../out"])
def test_an_output_inside_the_input_is_left_out(tmp_path, output):
    fill(str(tmp_path), "a.jpg", "out/preview.png", "outside/b.jpg", "out.jpg")
    assert uris(str(tmp_path), exclude=f"{tmp_path}/{output}") == ["a.jpg", "out.jpg", "outside/b.jpg"]
    assert len(uris(str(tmp_path), exclude=f"{tmp_path}-elsewhere")) == 4


def test_an_output_inside_a_prefix_is_left_out(s3):
    uri = s3.uri(f"bucket/{uuid.uuid4().hex}")
    fill(uri, "a.jpg", "out/preview.png")
    assert uris(uri, exclude=f"{uri}/out/") == ["a.jpg"]
    assert len(uris(uri, exclude=s3.uri("other/out"))) == 2


def test_an_output_that_is_the_input_is_refused(uri):
    fill(uri, "a.jpg")
    with pytest.raises(ValueError, match="is the input itself"):
        list_images(uri, exclude=f"{uri}/")


def test_a_missing_input_is_told_from_one_without_images(uri):
    with pytest.raises(FileNotFoundError, match=r"input .*in"):
        list_images(uri)
    fill(uri, "notes.txt", ".hidden.jpg")
    with pytest.raises(ValueError, match="no images found among 2 files"):
        list_images(uri)


def test_a_file_that_is_no_image_is_refused(tmp_path):
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(ValueError, match=r"notes.md is a file without an image's extension"):
        list_images(str(tmp_path / "notes.md"))


def test_a_file_changed_has_another_etag(uri):
    fill(uri, "a.jpg")
    before = next(iter(list_images(uri)))
    Storage(uri).write("a.jpg", b"others")
    assert next(iter(list_images(uri))).etag != before.etag


def test_a_name_that_is_not_utf8_is_named(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(ValueError, match=r"caf\\xe9.jpg.* is not UTF-8"):
        list_images(str(tmp_path))


def test_an_image_that_cannot_be_fetched_says_why_the_same_way_each_time(uri):
    fill(uri, "folder/x.jpg")
    storage = Storage(uri)
    for key, reason in (("gone.jpg", "no such file"), ("../x.jpg", "leads out"), ("folder", "")):
        reasons = set()
        for _ in range(2):
            with pytest.raises(ImageError) as caught:
                fetch_image(storage, key)
            assert caught.value.status == "fetch_failed"
            assert reason in caught.value.reason
            reasons.add(caught.value.reason)
        assert len(reasons) == 1
        assert storage.uri not in reasons.pop()


def test_a_dead_link_is_an_image_that_fails(tmp_path):
    (tmp_path / "a.jpg").symlink_to(tmp_path / "annex" / "missing")
    assert uris(str(tmp_path)) == ["a.jpg"]
    with pytest.raises(ImageError, match="dead link"):
        fetch_image(Storage(str(tmp_path)), "a.jpg")


def test_a_storage_that_fails_is_not_blamed_on_the_image(s3):
    with pytest.raises(StorageError):
        fetch_image(Storage("s3://no-such-bucket/x"), "a.jpg")


ODD_NAMES = (
    *("two  spaces .jpg", " leading.jpg", "-rf.jpg", "100%.jpg", "a%20b.jpg", "a b.jpg", "%2e%2e%2fup.jpg"),
    *("a#b.jpg", "a?b=c&d.jpg", "a+b.jpg", "caf\u00e9.jpg", "cafe\u0301.jpg", "\u5716\u50cf.jpg", "\U0001f40e.jpg"),
    *("[a-z]*.jpg", "{x}.jpg", "'q'.jpg", '"q".jpg', "Case.jpg", "case.jpg", "a..b.jpg", "a:b.jpg", "~.jpg"),
)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_odd_name_is_listed_and_fetched_as_it_is(uri, name):
    others = [other for other in ("a b.jpg", "case.jpg", "caf\u00e9.jpg", "ab.jpg") if other != name]
    fill(uri, f"sub {name}/{name}", *others)
    assert f"sub {name}/{name}" in uris(uri)
    assert len(uris(uri)) == len(others) + 1
    assert fetch_image(Storage(uri), f"sub {name}/{name}") == f"sub {name}/{name}".encode()


def test_a_link_that_leads_to_itself_is_an_image_that_fails(tmp_path):
    (tmp_path / "a.jpg").symlink_to("a.jpg")
    (tmp_path / "b").symlink_to("c")
    (tmp_path / "c").symlink_to("b")
    fill(str(tmp_path), "d.jpg")
    assert uris(str(tmp_path)) == ["a.jpg", "d.jpg"]
    with pytest.raises(ImageError) as caught:
        fetch_image(Storage(str(tmp_path)), "a.jpg")
    assert str(tmp_path) not in caught.value.reason
