"""What the uri of an image says, and the files that are named after it."""

import pytest

from proxyclip.dataset.layout import preview_key
from proxyclip.evaluation.labels.files import LabelFiles
from proxyclip.export.names import NamesInUse, suffix
from proxyclip.images.inputs.address import InputAddress, input_address, searched_folder
from proxyclip.images.inputs.names import is_address, split_parquet, split_tar, stands_for_damage, stem
from proxyclip.storage.store import Storage

NAMES = [
    ("photos/a.b.jpg", "photos/a.b"),
    ("s3://bucket/photos/a.jpg", "s3/bucket/photos/a"),
    ("file:///data/a.jpg", "file/data/a"),
    ("train-0001.tar!x/000123.jpg", "train-0001.tar!x/000123"),
    ("part-3.parquet#00000017", "part-3.parquet#00000017"),
    ("part-3.parquet#cat.17", "part-3.parquet#cat.17"),
]


@pytest.mark.parametrize(("uri", "name"), NAMES)
def test_files_made_of_an_image_have_a_name_of_their_own(uri, name):
    assert stem(uri) == name
    assert LabelFiles("labels").key(uri) == f"{name}.png"
    assert NamesInUse().name(uri) == name
    assert name + suffix(uri) in preview_key(uri)
    assert not preview_key(uri).startswith("preview//")
    shared = NamesInUse(frozenset([name]))
    assert shared.name(uri) == name + suffix(uri)


def test_members_rows_and_addresses_are_told_apart():
    assert split_tar("a/b.tar!c/d!e.jpg") == ("a/b.tar", "c/d!e.jpg")
    assert split_parquet("a/b.parquet#c#d") == ("a/b.parquet", "c#d")
    assert split_tar("a.tar/b.jpg") is split_parquet("a#b.jpg") is None
    assert [is_address(uri) for uri in ("s3://b/c", "file:///c", "c://", "b/c", "a b://c")] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert [stands_for_damage(uri) for uri in ("a.tar!", "a.parquet#", "a.tar!b", "http://a.tar!")] == [
        True,
        True,
        False,
        False,
    ]


def test_columns_are_part_of_an_address(tmp_path):
    text = input_address(f"{tmp_path}/x/", image_column="jpg", key_column="a b=c", uri_column=None)
    assert text == f"{tmp_path}/x;image-column=jpg;key-column=a b=c"
    assert InputAddress.parse(text) == InputAddress(f"{tmp_path}/x", None, "jpg", "a b=c")
    assert input_address(text) == text
    assert input_address(text, image_column="jpg") == text
    with pytest.raises(ValueError, match=r"--image-column is 'png', but --input says 'jpg'"):
        input_address(text, image_column="png")
    with pytest.raises(ValueError, match=r"--key-column is 'a;b'"):
        input_address(str(tmp_path), key_column="a;b")
    assert input_address(f"{tmp_path}/a;b").endswith("/a;b")


def test_only_a_folder_that_is_searched_must_hold_nothing_else(tmp_path):
    for name in ("t.csv", "a.tar", "b.tar", "a.jpg", "album.jpg/c.jpg"):
        Storage(str(tmp_path)).write(name, b"")
    here = Storage(str(tmp_path))
    assert [searched_folder(f"{tmp_path}/{name}") for name in ("", "*.tar")] == [here, here]
    assert [searched_folder(f"{tmp_path}/{name}") for name in ("t.csv", "{0..1}.tar", "a.tar", "a.jpg")] == [None] * 4
    assert searched_folder(f"{tmp_path}/album.jpg") == Storage(f"{tmp_path}/album.jpg")
