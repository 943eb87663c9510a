"""Names of exported files: no two images share one, in any order."""

from __future__ import annotations

from proxyclip.export.names import LONGEST_NAME_BYTES, NamesInUse, suffix


def images(*shards):
    return lambda: ((uri, number) for number, uris in enumerate(shards) for uri in uris)


def test_an_image_loses_its_suffix_unless_another_one_has_the_same_name_without_it():
    names, of_shard = NamesInUse.find(images(["x/a.jpg", "x/b.jpg"], ["x/a.PNG", "y/a.jpg"]))
    assert [names.name(uri) for uri in ("x/a.jpg", "x/a.PNG", "x/b.jpg", "y/a.jpg")] == [
        *("x/a.jpg", "x/a.PNG"),
        *("x/b", "y/a"),
    ]
    assert of_shard == {0: ["x/a.jpg"], 1: ["x/a.PNG"]}


def test_no_two_names_are_equal_whatever_the_images_are_called():
    parts = ("a", "a.png", "a.jpg", "a.png.jpg", "a.jpg.png", ".jpg", "ab", "a.", "A")
    uris = sorted({f"{part}{end}" for part in parts for end in ("", ".jpg", ".png", ".JPG", ".tiff")})
    for some in (uris, uris[::2], uris[1::3], uris[::-1]):
        names, _ = NamesInUse.find(images(some[:7], some[7:]))
        assert len({names.name(uri) for uri in some}) == len(some)


def test_a_name_that_a_disk_would_refuse_is_replaced_by_its_hash():
    names = NamesInUse()
    long, other = ("folder/" + letter * 250 + ".jpg" for letter in "ab")
    assert names.name(long).startswith("folder/")
    assert len(names.name(long).encode()) <= LONGEST_NAME_BYTES
    assert names.name(long) != names.name(other)


def test_the_suffix_is_what_the_name_has_not():
    assert [suffix(uri) for uri in ("a.b/c.JPG", "a.b/c", ".jpg", "x.tar.png")] == [".JPG", "", "", ".png"]
