import re
from pathlib import Path

import pytest

from proxyclip.dataset import plan as module
from proxyclip.dataset.layout import CLASS_STATS, plan_key
from proxyclip.dataset.manifest import Manifest, Totals
from proxyclip.dataset.plan import ShardRange
from proxyclip.dataset.rows import Failure, LabelledImage
from proxyclip.dataset.shards import read_masks, write_shard
from proxyclip.images.listing import ImageRef


@pytest.fixture
def manifest(disk):
    return Manifest(disk)


def refs(count, size_bytes=10, start=0, etag="1"):
    return [ImageRef(f"{number:05d}.jpg", size_bytes, etag) for number in range(start, start + count)]


def commit(manifest, shard, labelled=1, failed=0):
    images = [
        LabelledImage(f"{shard}/{n}", 1, 10, b"m", b"c", [0, 1], [6, 3], [0.5, 1.0], 0.6, 1) for n in range(labelled)
    ]
    failures = [Failure(f"{shard}/f{n}", "decode", "empty", "no bytes") for n in range(failed)]
    write_shard(manifest.storage, shard, images, failures, ["sky", "tree", "horse"])


def test_pending_is_what_is_planned_and_not_committed(manifest, monkeypatch):
    monkeypatch.setattr(module, "SHARDS_PER_PART", 4)
    manifest.extend_plan(refs(10), 1)
    assert [task.num_shards for task in manifest.pending()] == [4, 4, 2]
    for shard in (0, 1, 2, 3, 5, 8):
        commit(manifest, shard)
    assert set(manifest.committed()) == {0, 1, 2, 3, 5, 8}
    assert manifest.pending() == [ShardRange(1, (4, 6, 7)), ShardRange(2, (9,))]
    assert ShardRange(1, (4, 6, 7)).split(2) == [ShardRange(1, (4, 6)), ShardRange(1, (7,))]
    assert list(manifest.read_range(ShardRange(1, (6, 4)))) == [(6, refs(7)[6:]), (4, refs(5)[4:])]


def test_totals_count_images_and_shards(manifest):
    assert manifest.totals() == Totals(0, 0, 0, 0, 0)
    manifest.extend_plan(refs(10), 4)
    commit(manifest, 0, labelled=3, failed=1)
    commit(manifest, 2, labelled=0, failed=2)
    assert manifest.totals() == Totals(planned=10, labelled=3, failed=3, shards=3, committed=2)


def test_class_statistics_are_exact_and_repeat_to_the_byte(manifest):
    for shard in range(3):
        commit(manifest, shard, labelled=2, failed=1)
    stats = manifest.write_class_stats()
    data = manifest.storage.read(CLASS_STATS)
    assert [(stat.index, stat.name, stat.images, stat.pixels, stat.mean_confidence) for stat in stats] == [
        (0, "sky", 6, 36, 0.5),
        (1, "tree", 6, 18, 1.0),
    ]
    assert stats[0].share == 36 / 54
    manifest.write_class_stats()
    assert manifest.storage.read(CLASS_STATS) == data


def label_all(manifest):
    """Label what is pending: every tenth image fails; classes and confidence differ from image to image."""
    for task in manifest.pending():
        for shard, planned in manifest.read_range(task):
            uris = [image.uri for image in planned]
            failures = [Failure(uri, "decode", "empty", "no bytes") for uri in uris if uri[4] == "0"]
            images = [
                LabelledImage(uri, 1, 10, b"m", b"c", [0, 1 + int(uri[4]) % 2], [4, 6], [1 / (shard + 2), 0.1], 0.6, 0)
                for uri in uris
                if uri[4] != "0"
            ]
            write_shard(manifest.storage, shard, images, failures, ["sky", "tree", "horse"])


def test_dead_rows_count_nowhere(manifest):
    manifest.extend_plan(refs(25), 4)
    label_all(manifest)
    listing = [ImageRef("00000.jpg", 11, "1"), ImageRef("00001.jpg", 11, "1"), *refs(17, start=2)]  # 19 to 24 are gone
    manifest.extend_plan(listing, 4)
    assert manifest.totals() == Totals(planned=19, labelled=16, failed=1, shards=8, committed=7)
    label_all(manifest)
    assert manifest.totals() == Totals(planned=19, labelled=17, failed=2, shards=8, committed=8)
    rows = list(read_masks(manifest.storage))
    assert sorted(row.uri for row in rows) == [ref.uri for ref in refs(19) if ref.uri[4] != "0"]
    stats = {stat.index: stat for stat in manifest.write_class_stats()}
    for index in (0, 1, 2):
        found = [(row, row.classes.index(index)) for row in rows if index in row.classes]
        assert (stats[index].images, stats[index].pixels) == (len(found), sum(row.pixels[at] for row, at in found))
        confidence = sum(row.pixels[at] * row.class_confidence[at] for row, at in found) / stats[index].pixels
        assert stats[index].mean_confidence == pytest.approx(confidence, abs=1e-9)
    assert sum(stat.share for stat in stats.values()) == pytest.approx(1)


def test_the_docs_say_how_plain_readers_drop_dead_rows(manifest, tmp_path, monkeypatch):
    manifest.extend_plan(refs(25), 4)
    label_all(manifest)
    manifest.extend_plan([ImageRef("00001.jpg", 11, "1"), *refs(17, start=2)], 4)
    label_all(manifest)
    page = (Path(__file__).resolve().parents[2] / "docs" / "output.md").read_text()
    (snippet,) = re.findall(r"```python\n(from pathlib[^`]*)```", page)
    (tmp_path / "labels").symlink_to(tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    found: list[str] = []
    exec(snippet + "    found += masks['uri'].to_pylist()", {"found": found})
    assert found == [row.uri for row in read_masks(manifest.storage)]
    assert len(found) == 17


def test_a_class_whose_images_are_gone_is_gone(manifest):
    manifest.extend_plan(refs(4), 2)
    label_all(manifest)
    manifest.extend_plan([refs(4)[2]], 2)
    assert [(stat.name, stat.images) for stat in manifest.write_class_stats()] == [("sky", 1), ("tree", 1)]


def test_class_statistics_are_out_of_date_once_the_plan_grows(manifest):
    manifest.extend_plan(refs(8), 4)
    label_all(manifest)
    assert not manifest.has_class_stats()
    manifest.write_class_stats()
    assert manifest.has_class_stats()
    manifest.extend_plan(refs(7), 4)
    assert not manifest.has_class_stats()
    manifest.write_class_stats()
    assert manifest.has_class_stats()


def test_a_run_without_labels_has_empty_statistics(manifest):
    assert manifest.write_class_stats() == []


def test_a_part_that_was_lost_is_named(manifest):
    manifest.extend_plan(refs(1))
    manifest.storage.write(plan_key(2), manifest.storage.read(plan_key(0)))
    manifest.storage.write("plan/notes.txt", b"not ours")
    with pytest.raises(FileNotFoundError, match=r"plan/00001.parquet"):
        manifest.pending()
