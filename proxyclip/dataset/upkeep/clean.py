"""`clean`: removes what killed writers have left, which no reader sees."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from proxyclip.dataset.commits import committed, read_commits
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.rows import KINDS
from proxyclip.storage.disk import TEMPORARY
from proxyclip.storage.store import Storage

_DATA = re.compile(rf"({'|'.join(KINDS)})/\d{{6,}}-[0-9a-f]{{12}}\.parquet")


@dataclass(frozen=True)
class Cleaned:
    """What was removed, or would be: keys of files, and their bytes."""

    orphans: tuple[str, ...]
    temporary: tuple[str, ...]
    size_bytes: int


def clean(storage: Storage, older_than_h: float = 24, *, dry_run: bool = False) -> Cleaned:
    """Remove data files that no commit names, and temporary files, unless they are younger than `older_than_h` hours.

    Younger ones may belong to a job that is just writing them. Holds about 1 kB for each shard.
    Raises FileNotFoundError where no run was begun: such a folder is not ours to clean.
    """
    if older_than_h < 0:
        raise ValueError(f"--older-than-h {older_than_h:g} found, 0 or more hours wanted.")
    Manifest(storage).run_record()
    before_s = time.time() - older_than_h * 3600
    # Files are listed before commits are read: one that is committed in between is not taken for an orphan.
    files = {entry.key: entry for kind in KINDS for entry in storage.list(kind) if _DATA.fullmatch(entry.key)}
    for commit in read_commits(storage, committed(storage)):
        for file in commit.files.values():
            files.pop(file.key, None)
    size_bytes, orphans = 0, []
    for entry in files.values():
        known = entry.modified_s > 0 or older_than_h == 0  # a storage that tells no times may hold young files
        # Looked at once more: a writer may just have written these very bytes again.
        if known and entry.modified_s <= before_s and storage.exists(entry.key) and storage.stat(entry.key) == entry:
            size_bytes += entry.size_bytes
            orphans.append(entry.key)
            if not dry_run:
                storage.delete(entry.key)
    temporary = []
    folder = storage.local  # only disks have temporary files
    for path in sorted(folder.rglob(f"{TEMPORARY}*")) if folder else ():
        found = path.stat()
        if found.st_mtime <= before_s:
            size_bytes += found.st_size
            temporary.append(path.relative_to(storage.uri).as_posix())
            if not dry_run:
                path.unlink(missing_ok=True)
    return Cleaned(tuple(orphans), tuple(temporary), size_bytes)
