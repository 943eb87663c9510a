"""Which version of a vocabulary's labels is the current one, and which are deleted."""

from __future__ import annotations

import dataclasses
import os

import pytest

from proxyclip.dataset.run_record import RunRecord
from proxyclip.pipeline.reprocess.versions import Current, point, read_current, tidy, version_of
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary

DAY_S = 24 * 3600


def of(version: str, *others: str, images: int = 1) -> Current:
    return Current(version * 12, "f", images, images, 0, 1, tuple(each * 12 for each in (*others, version)))


@pytest.mark.parametrize(
    ("seen", "found", "is_newest", "after"),
    [
        (None, None, False, of("c")),  # the vocabulary was edited, and nobody has made the newer version yet
        (of("a"), of("a"), False, of("c", "a")),
        (of("c", "a", images=9), of("c", "a", images=9), True, of("c", "a")),
        (of("a", "c"), of("a", "c"), True, of("c", "a")),  # set back to what it was
        (of("a"), of("b", "a"), False, of("b", "a")),  # overtaken
        (of("a"), of("b", "a"), True, of("c", "a", "b")),  # the other run was the slow one
        (of("a"), of("c", "a", images=9), True, of("c", "a", images=9)),  # another run did the same
    ],
)
def test_current_is_not_moved_back(tmp_path, seen, found, is_newest, after):
    labels = Storage(str(tmp_path))
    if found is not None:
        labels.write("current.json", found.to_json())
    moved = point(labels, seen, dataclasses.replace(of("c"), versions=()), lambda: is_newest)
    assert read_current(labels) == after
    assert moved == (after.version == "c" * 12)


def test_a_version_is_named_by_recipe_and_colours():
    record, other = (RunRecord("/photos", {}, fingerprint * 64) for fingerprint in "ab")
    plain = {"classes": ["road", "house"], "background": None}
    coloured = [{**plain, "palette": [[1, 2, 3], [4, 5, blue]]} for blue in (6, 7)]
    names = [version_of(record, Vocabulary.from_json(data)) for data in (plain, *coloured, coloured[0])]
    assert names[0] == "a" * 12
    assert len(set(names)) == 3
    assert names[1] == names[3]
    assert version_of(other, Vocabulary.from_json(coloured[0])) not in names


def test_a_version_that_is_not_listed_waits_a_day(tmp_path):
    """A run may be at work on it. Then it counts as the oldest if it is finished, and is deleted if not."""
    labels = Storage(str(tmp_path))
    for version in "abdef":
        labels.write(f"{version * 12}/run.json", b"{}")
    for version in "bd":
        labels.write(f"{version * 12}/class_stats.parquet", b"")
    labels.write("notes/own.txt", b"")
    labels.write("current.json", of("f", "e").to_json())
    now_s = labels.stat("current.json").modified_s
    assert tidy(labels, 3, now_s + DAY_S - 60) == []
    old_s = now_s - 60
    os.utime(tmp_path / ("d" * 12) / "class_stats.parquet", (old_s, old_s))
    os.utime(tmp_path / ("d" * 12) / "run.json", (old_s, old_s))
    assert tidy(labels, 3, now_s + DAY_S + 60) == ["a" * 12, "d" * 12]
    assert read_current(labels) == of("f", "b", "e")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [*(v * 12 for v in "bef"), "notes"]
