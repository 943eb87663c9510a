"""What disks do: full, over a limit; with real limits of the kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxyclip.storage.store import Storage, StorageError


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_full_disk_keeps_what_was_there_and_nothing_half_written(small_disk):
    storage = Storage(str(small_disk))
    storage.write("x", b"old")
    for method in (storage.write, storage.create):
        with pytest.raises(StorageError, match=r"x.*: No space left on device; make room"):
            method("x", bytes(2**21))
    assert storage.read("x") == b"old"
    assert names(small_disk) == ["x"]
    storage.write("x", bytes(2**19))
    assert storage.stat("x").size_bytes == 2**19


def test_a_file_larger_than_allowed_leaves_nothing(tmp_path):
    code = (
        "import resource, sys; from proxyclip.storage.store import Storage; s = Storage(sys.argv[1]); "
        "s.write('x', b'old'); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); s.write('x', bytes(8192))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1
    assert "StorageError" in done.stderr.splitlines()[-1]
    assert "File too large; make room" in done.stderr.splitlines()[-1]
    assert (tmp_path / "x").read_bytes() == b"old"
    assert names(tmp_path) == ["x"]
