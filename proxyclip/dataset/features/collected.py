"""The statistics that a labelling job collects in place of features: one small file a shard, for `adapt`.

They are written before the shard is committed, so a shard that was labelled with them has them. Their hash is in their
key: if two writers of a shard differ, both files are there, and readers take the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from proxyclip.dataset.commits import committed
from proxyclip.dataset.features.record import FeatureRecord
from proxyclip.dataset.layout import COLLECTED, COLLECTED_FOLDER, collected_key, parse_collected_key
from proxyclip.dataset.run_record import RecipeMismatch
from proxyclip.storage.store import Storage, public_uri

# What the record says in place of a codec: no feature is stored.
NO_CODEC = "none"

# Files read ahead, a megabyte each.
_AHEAD = 16


def begin_collecting(storage: Storage, record: FeatureRecord) -> None:
    """Write what the statistics are of. Raises RecipeMismatch if there are others already."""
    if not storage.create(COLLECTED, record.to_json()) and read_collected_record(storage) != record:
        raise RecipeMismatch(
            f"{public_uri(storage.uri)} has statistics of another network, other windows or another precision. Give "
            "the settings that they were made with, or another --output."
        )


def read_collected_record(storage: Storage) -> FeatureRecord | None:
    """What the collected statistics of an output are of; None if it has none."""
    try:
        data = storage.read(COLLECTED)
    except FileNotFoundError:
        return None
    try:
        return FeatureRecord.from_json(data)
    except ValueError as error:
        raise ValueError(f"{public_uri(storage.uri)}: {error}") from error


def write_collected(storage: Storage, shard: int, data: bytes) -> None:
    """Keep the statistics of a shard."""
    storage.write(collected_key(shard, hashlib.sha256(data).hexdigest()), data)


def read_collected(storage: Storage) -> Iterator[tuple[int, bytes]]:
    """The statistics of every committed shard that has some, in order of shard. Memory: those of a few.

    Raises ValueError if a file was changed.
    """
    done = committed(storage)
    keys: dict[int, str] = {}
    for entry in storage.list(COLLECTED_FOLDER):
        found = parse_collected_key(entry.key)
        if found is not None and found[0] in done:
            keys[found[0]] = min(entry.key, keys.get(found[0], entry.key))
    shards = sorted(keys)
    with ThreadPoolExecutor(_AHEAD) as pool:
        for first in range(0, len(shards), _AHEAD):
            some = shards[first : first + _AHEAD]
            yield from zip(some, pool.map(lambda shard: _read(storage, keys[shard]), some), strict=True)


def _read(storage: Storage, key: str) -> bytes:
    data, parsed = storage.read(key), parse_collected_key(key)
    if parsed is None or not hashlib.sha256(data).hexdigest().startswith(parsed[1]):
        raise ValueError(
            f"{key}: the file was changed after it was written. Delete it: the head then does not know this shard."
        )
    return data
