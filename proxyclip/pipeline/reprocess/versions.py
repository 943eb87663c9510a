"""The versions of a vocabulary's labels: `current.json` points to the newest finished one, old ones are deleted.

A version is an output of its own, in a folder that is named by a hash of all that decides its masks. So runs with
different vocabularies never write to the same version, and runs with the same vocabulary write the same files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Any

from proxyclip.dataset.layout import CLASS_STATS, COMMITS_FOLDER, RUN, parse_plan_key
from proxyclip.dataset.run_record import RunRecord
from proxyclip.dataset.validate import json_object
from proxyclip.pipeline.reprocess.options import LABELS_FOLDER
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary

CURRENT = "current.json"
NAMES = "names.json"

# A version that current.json does not list may be at work in another run until nothing was written to it for so long.
STRAY_S = 24 * 3600


@dataclass(frozen=True)
class Current:
    """What current.json says.

    version: the folder. vocabulary: fingerprint of the vocabulary. images, labelled, failed, shards: of that version.
    versions: the finished versions that are kept, newest last, with this one.
    """

    version: str
    vocabulary: str
    images: int
    labelled: int
    failed: int
    shards: int
    versions: tuple[str, ...]

    def to_json(self) -> bytes:
        """The bytes of current.json."""
        return (json.dumps({**asdict(self), "finished": True}, indent=1, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Current:
        """Read current.json. Raises ValueError, with what to do, if somebody has damaged it."""
        fields: Any = json_object(data, CURRENT)
        counts = {name: fields.get(name) for name in ("images", "labelled", "failed", "shards")}
        version, vocabulary, versions = (fields.get(name) for name in ("version", "vocabulary", "versions"))
        if not (
            isinstance(versions, list)
            and version in versions
            and all(isinstance(each, str) and _is_version(each) for each in versions)
            and isinstance(vocabulary, str)
            and all(isinstance(count, int) for count in counts.values())
        ):
            raise ValueError(f"{CURRENT} is damaged. Delete it; the next run writes it again.")
        return cls(version=version, vocabulary=vocabulary, versions=tuple(versions), **counts)


def version_of(record: RunRecord, vocabulary: Vocabulary) -> str:
    """The name of a version: 12 hex digits over the recipe, with its vocabulary, and over the colours of the masks."""
    if vocabulary.palette is None:
        return record.fingerprint[:12]
    return hashlib.sha256(f"{record.fingerprint} {vocabulary.palette}".encode()).hexdigest()[:12]


def read_current(labels: Storage) -> Current | None:
    """What current.json in the folder of a vocabulary's labels says; None if no version is finished."""
    try:
        return Current.from_json(labels.read(CURRENT))
    except FileNotFoundError:
        return None


def point(labels: Storage, seen: Current | None, new: Current, is_newest: Callable[[], bool]) -> bool:
    """Let current.json point to a finished version. Returns whether it now points there.

    seen: what current.json said before this run read the vocabulary. new: its `versions` do not count. is_newest:
    whether the vocabulary is still what this run has read; asked only if another run has moved current.json since.

    So a slow run does not move it back from the version of a run that has read a newer vocabulary. No storage compares
    before it writes: if both write in the same moment, the older version can win, and the next run corrects that.
    """
    found = read_current(labels)
    if found != seen:  # another run was at work
        if found is not None and found.version == new.version:
            return True  # its numbers may be newer than ours
        if not is_newest():
            return False
    others = () if found is None else tuple(version for version in found.versions if version != new.version)
    new = replace(new, versions=(*others, new.version))
    if new != found:
        labels.write(CURRENT, new.to_json())
    return True


def tidy(labels: Storage, keep: int, now_s: float) -> list[str]:
    """Delete the finished versions but the newest `keep`, and what was never finished. Returns what was deleted.

    The current version stays. A version that current.json does not list (its run was killed, or was slower than a
    newer one) is left alone until nothing was written to it for `STRAY_S`: a run may be at work on it. Then it counts
    as the oldest if it is finished, and is deleted if not. Lists all files of `labels`.
    """
    current = read_current(labels)
    if current is None:
        return []
    last_s: dict[str, int] = {}
    keys: dict[str, set[str]] = defaultdict(set)
    for entry in labels.list():
        version, _, key = entry.key.partition("/")
        if _is_version(version) and version not in current.versions:
            last_s[version] = max(last_s.get(version, 0), entry.modified_s)
            keys[version].update({key}.intersection((RUN, CLASS_STATS)))
    finished = {version for version, found in keys.items() if len(found) == 2}
    strays = sorted((time_s, version) for version, time_s in last_s.items() if 0 < time_s <= now_s - STRAY_S)
    adopted = [version for _, version in strays if version in finished]
    old = [version for _, version in strays if version not in finished]
    old += [version for version in [*adopted, *current.versions][:-keep] if version != current.version]
    for version in old:
        _delete(labels, version)
    # A version stays listed until it is gone: if this run is killed, the next one goes on.
    latest = read_current(labels)
    if latest is not None:
        kept = [version for version in adopted if version not in latest.versions] + list(latest.versions)
        tidied = replace(latest, versions=tuple(each for each in kept if each not in old or each == latest.version))
        if tidied != latest:
            labels.write(CURRENT, tidied.to_json())
    return old


def note_names(output: Storage, names: Sequence[str], labelled: Sequence[str]) -> list[str]:
    """Note the vocabularies that have labels. Returns those that have some and are not among `names` any more.

    Runs that note new names in the same moment can lose one; the next run notes it again.
    """
    try:
        known = {str(name) for name in json.loads(output.read(NAMES))}
    except (FileNotFoundError, ValueError, TypeError):
        known = set()
    if not known.issuperset(labelled):
        data = json.dumps(sorted(known.union(labelled)), ensure_ascii=False, indent=1)
        output.write(NAMES, f"{data}\n".encode())
    return [name for name in sorted(known.difference(names)) if output.exists(f"{LABELS_FOLDER}/{name}/{CURRENT}")]


def _is_version(name: str) -> bool:
    return re.fullmatch("[0-9a-f]{12}", name) is not None


def _delete(labels: Storage, version: str) -> None:
    """Delete a version: first what makes it whole, then its data, run.json last.

    If this is killed, what is left is an unfinished output: readers say so, and a run with its vocabulary completes it.
    """
    output = Storage(f"{labels.uri}/{version}")
    keys = {entry.key for entry in output.list()}
    plan = {key for key in keys if parse_plan_key(key) is not None}
    commits = {key for key in keys if key.startswith(f"{COMMITS_FOLDER}/")}
    output.delete(CLASS_STATS)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(output.delete, commits))
        list(pool.map(output.delete, keys - commits - plan - {CLASS_STATS, RUN}))
    for key in (*sorted(plan, reverse=True), RUN):  # a plan has no gaps
        output.delete(key)
    if output.local:  # object stores have no folders
        for path in sorted((path for path in output.local.rglob("*") if path.is_dir()), reverse=True):
            with contextlib.suppress(OSError):
                path.rmdir()
        with contextlib.suppress(OSError):
            output.local.rmdir()
