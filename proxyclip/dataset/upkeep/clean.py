"""`clean`: removes the files that killed writers have left. No reader uses them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from proxyclip.dataset.commits import committed, read_commits
from proxyclip.dataset.features.record import features_of
from proxyclip.dataset.layout import FEATURES_FOLDER, parse_data_key
from proxyclip.dataset.rows import ALL_KINDS, KINDS
from proxyclip.dataset.run_record import require_run
from proxyclip.storage.disk import TEMPORARY
from proxyclip.storage.store import Entry, Storage


@dataclass(frozen=True)
class Cleaned:
    """The keys of the files that were (or would be) removed, and their bytes in all."""

    orphans: tuple[str, ...]
    temporary: tuple[str, ...]
    size_bytes: int


def clean(storage: Storage, older_than_h: float = 24, *, dry_run: bool = False) -> Cleaned:
    """Remove data files that no commit names, and temporary files, if they are older than `older_than_h` hours.

    Those of the features too. A running job may still be writing younger ones. Memory: about 1 kB per shard.
    Raises FileNotFoundError if no run was begun: then the folder is not an output.
    """
    if older_than_h < 0:
        raise ValueError(f"--older-than-h is {older_than_h:g}; give 0 or more hours.")
    require_run(storage)
    before_s = time.time() - older_than_h * 3600
    size_bytes, orphans = 0, []
    features = features_of(storage)
    for place, kinds, prefix in ((storage, KINDS, ""), (features, ALL_KINDS, f"{FEATURES_FOLDER}/")):
        for entry in _without_commit(place, kinds):
            known = entry.modified_s > 0 or older_than_h == 0  # without a time, the file may be young
            # Look again: a writer may have written the same file anew since the listing.
            if known and entry.modified_s <= before_s and place.exists(entry.key) and place.stat(entry.key) == entry:
                size_bytes += entry.size_bytes
                orphans.append(prefix + entry.key)
                if not dry_run:
                    place.delete(entry.key)
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


def _without_commit(storage: Storage, kinds: Iterable[str]) -> list[Entry]:
    """The data files that no commit in `storage` names."""
    # List files before reading commits: a file that is committed in between is then not taken for an orphan.
    files = {entry.key: entry for kind in kinds for entry in storage.list(kind) if parse_data_key(entry.key)}
    for commit in read_commits(storage, committed(storage)):
        for file in commit.files.values():
            files.pop(file.key, None)
    return list(files.values())
