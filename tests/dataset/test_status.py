import json
import os
import time

import pytest
from outputs import begin, images, label_pending, run

from proxyclip import cli
from proxyclip.dataset.layout import commit_key, segment_key
from proxyclip.dataset.manifest import Totals
from proxyclip.dataset.upkeep import status as status_module
from proxyclip.dataset.upkeep.status import status

pytestmark = pytest.mark.usefixtures("short_segments")


def planned(storage, count):
    manifest = begin(storage)
    manifest.extend_plan(images(count), 3)
    return manifest


def date_back(storage, key, seconds):
    path = storage.local / key
    os.utime(path, (time.time() - seconds, time.time() - seconds))


def test_a_run_that_has_just_begun_has_nothing_yet(storage):
    begin(storage)
    found = status(storage)
    assert found.totals == Totals(0, 0, 0, 0, 0)
    assert (found.finished, found.images_per_s, found.left_s, found.last_commit_s) == (False, None, None, None)


def test_where_no_run_was_begun_there_is_no_status(storage):
    with pytest.raises(FileNotFoundError, match=r"run\.json"):
        status(storage)


def test_a_run_in_the_middle_and_at_its_end(storage):
    manifest = planned(storage, 24)
    label_pending(manifest, {0, 1, 2, 4})
    manifest.compact()
    found = status(storage)
    assert found.totals == Totals(planned=24, labelled=10, failed=2, shards=8, committed=4)
    assert not found.finished
    assert found.last_commit_s < 600
    assert found.failures == {("decode_failed", "no image"): 2}
    run(storage, images(24))
    found = status(storage)
    assert found.finished
    assert found.totals.labelled + found.totals.failed == 24


def test_the_rate_is_that_of_the_last_hour_of_work(disk):
    manifest = planned(disk, 30)
    label_pending(manifest, {0, 1, 3, 4, 6})
    for shard, age_s in ((0, 90_000), (1, 80_000), (3, 70), (4, 40), (6, 10)):
        date_back(disk, commit_key(shard), age_s)
    found = status(disk)
    assert found.images_per_s == pytest.approx(6 / 60, rel=0.05)
    assert found.left_s == pytest.approx(15 / (6 / 60), rel=0.05)
    assert 10 <= found.last_commit_s < 310


def test_where_all_is_compacted_segments_tell_the_rate(disk):
    manifest = planned(disk, 30)
    label_pending(manifest, range(6))
    manifest.compact()
    date_back(disk, segment_key(0), 100)
    date_back(disk, segment_key(1), 10)
    assert status(disk).images_per_s == pytest.approx(9 / 90, rel=0.05)


def test_dead_failures_are_not_counted_and_reading_them_is_bounded(disk, monkeypatch):
    run(disk, images(30))
    assert status(disk).failures.total() == 4
    run(disk, images(20))
    assert status(disk).failures.total() == status(disk).totals.failed == 2
    monkeypatch.setattr(status_module, "MAX_FAILURE_FILES", 1)
    assert status(disk).failures_of == 1


def said(storage, monkeypatch, capsys, *options):
    monkeypatch.setattr("sys.argv", ["proxyclip", "status", storage.uri, *options])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_the_command_says_it_in_words(disk, monkeypatch, capsys):
    manifest = begin(disk)
    assert "nothing is planned yet" in said(disk, monkeypatch, capsys)
    manifest.extend_plan(images(24), 3)
    assert "nothing is committed yet" in said(disk, monkeypatch, capsys)
    label_pending(manifest, {0, 2})
    date_back(disk, commit_key(0), 3)
    text = said(disk, monkeypatch, capsys)
    assert "6 of 24 images, 2 of 8 shards; 1 images failed." in text
    assert "images/s" in text
    assert "1  decode_failed: no image" in text
    label_pending(manifest, range(8))
    manifest.write_class_stats()
    assert "Finished." in said(disk, monkeypatch, capsys)


def test_as_json_it_is_one_line_with_every_number(disk, monkeypatch, capsys):
    label_pending(planned(disk, 24), {0, 2})
    line = said(disk, monkeypatch, capsys, "--json")
    found = json.loads(line)
    assert line.count("\n") == 1
    assert [found[name] for name in ("planned", "labelled", "failed", "shards", "committed")] == [24, 5, 1, 8, 2]
    assert (found["finished"], found["features"]) == (False, None)
    assert found["failures"] == [{"status": "decode_failed", "reason": "no image", "images": 1}]


def test_watching_ends_with_the_run(disk, monkeypatch, capsys):
    manifest, waited = planned(disk, 24), []

    def go_on(seconds):
        waited.append(seconds)
        label_pending(manifest, range(4 * len(waited)))
        if len(waited) == 2:
            manifest.write_class_stats()

    monkeypatch.setattr("time.sleep", go_on)
    lines = said(disk, monkeypatch, capsys, "--json", "--watch", "--every-s", "7").splitlines()
    assert [json.loads(line)["committed"] for line in lines] == [0, 4, 8]
    assert waited == [7, 7]


def test_ctrl_c_ends_watching(disk, monkeypatch, capsys):
    def interrupt(seconds):
        raise KeyboardInterrupt

    planned(disk, 24)
    monkeypatch.setattr("time.sleep", interrupt)
    assert "nothing is committed yet" in said(disk, monkeypatch, capsys, "--watch")
