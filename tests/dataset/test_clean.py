import os
import subprocess
import sys
import time

import pytest
from outputs import files, images, run

from proxyclip import cli
from proxyclip.dataset.layout import commit_key
from proxyclip.dataset.upkeep.clean import clean
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.storage.store import Storage

pytestmark = pytest.mark.usefixtures("short_segments")


@pytest.fixture
def output(storage):
    run(storage, images(15))
    return storage


ORPHANS = ("failures/000000-0123456789ab.parquet", "masks/000001-0123456789ab.parquet")
OURS_NOT = ("masks/notes.txt", "masks/mine.parquet", "preview/000000-0123456789ab.parquet")


def test_what_no_commit_names_is_removed_and_nothing_else(output):
    whole = files(output)
    for key in (*ORPHANS, *OURS_NOT):
        output.write(key, b"12345")
    assert clean(output, 24).orphans == ()
    found = clean(output, 0, dry_run=True)
    assert sorted(found.orphans) == sorted(ORPHANS)
    assert found.size_bytes == 10
    assert clean(output, 0) == found
    assert files(output) == {**whole, **dict.fromkeys(OURS_NOT, b"12345")}
    assert clean(output, 0).orphans == ()
    assert verify(output).problems == []


def test_files_of_a_shard_without_a_commit_go_once_they_are_old(tmp_path):
    output = Storage(str(tmp_path / "out"))
    run(output, images(15))
    whole = files(output)
    output.delete(commit_key(4))
    old = [key for key in whole if "000004-" in key]
    for key in old[1:]:
        os.utime(tmp_path / "out" / key, (time.time() - 7300, time.time() - 7300))
    assert len(old) > 1
    assert sorted(clean(output, 2).orphans) == old[1:]
    run(output, images(15))
    assert files(output) == whole


def test_temporary_files_of_killed_writers_go_once_they_are_old(tmp_path):
    output = Storage(str(tmp_path / "out"))
    run(output, images(3))
    code = (
        "import os, sys; from proxyclip.storage.store import Storage; os.fsync = lambda _: os._exit(9); "
        "Storage(sys.argv[1]).write('masks/x', b'half')"
    )
    assert subprocess.run([sys.executable, "-c", code, output.uri]).returncode == 9
    (left,) = (tmp_path / "out" / "masks").glob(".proxyclip-tmp-*")
    assert clean(output).temporary == ()
    os.utime(left, (time.time() - 90_000, time.time() - 90_000))
    found = clean(output, dry_run=True)
    assert found.temporary == (f"masks/{left.name}",)
    assert left.exists()
    assert clean(output) == found
    assert not left.exists()


def test_a_folder_that_is_no_output_is_left_alone(tmp_path):
    storage = Storage(str(tmp_path))
    storage.write(ORPHANS[0], b"of something else")
    with pytest.raises(FileNotFoundError, match=r"run\.json"):
        clean(storage, 0)
    assert storage.exists(ORPHANS[0])


def test_the_command_removes_says_how_much_and_refuses_nonsense(output, monkeypatch, capsys):
    def command(*words):
        monkeypatch.setattr("sys.argv", ["proxyclip", "clean", output.uri, *words])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, capsys.readouterr()

    output.write(ORPHANS[0], b"12345")
    code, said = command("--older-than-h", "0", "--dry-run")
    assert code == 0
    assert "1 data files without a commit and 0 temporary files would be removed, 5 bytes." in said.out
    assert "removed, 5 bytes." in command("--older-than-h", "0")[1].out
    assert not output.exists(ORPHANS[0])
    code, said = command("--older-than-h", "-1")
    assert (code, "--older-than-h is -1; give 0 or more hours" in said.err) == (2, True)
