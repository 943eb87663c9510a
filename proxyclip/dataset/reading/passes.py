"""A pass over a labelled output: what it makes of which labels, and which shards it has done.

An export and an evaluation are passes. A pass keeps a record, and a receipt for each shard that it has done, in a
hidden folder of its destination; the same command therefore goes on where a killed one stopped. It never writes into
the labelled output.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.validate import json_object
from proxyclip.storage.store import Storage, public_uri

FOLDER = ".proxyclip"
RECORD = f"{FOLDER}/pass.json"
_RECEIPT = re.compile(rf"{FOLDER}/shards/(\d{{6,}})-([0-9a-f]{{12}})\.receipt", re.ASCII)


class PassMismatch(ValueError):  # noqa: N818
    """The destination holds another pass."""


@dataclass(frozen=True)
class PassRecord:
    """What a destination holds.

    kind: what the pass makes, for instance "export png". source: URI of the labelled output, without credentials.
    fingerprint: that of the recipe of the masks. settings: all else that decides what is written, as plain values.
    """

    kind: str
    source: str
    fingerprint: str
    settings: dict[str, Any]

    @classmethod
    def of(cls, kind: str, labels: Labels, settings: dict[str, Any]) -> PassRecord:
        """The record of a pass over an opened output."""
        plain = json.loads(json.dumps(settings))
        return cls(kind, public_uri(labels.storage.uri), labels.record.fingerprint, plain)


class ShardState(NamedTuple):
    """A shard as it is now. state: 12 hex digits that change when its files, its dead rows or other inputs do."""

    shard: int
    state: str


def shard_states(labels: Labels, inputs: str = "") -> list[ShardState]:
    """The committed shards of an output, in order. inputs: stands for what else all shards depend on."""
    states = []
    for commit in labels.commits():
        parts = [file.sha256 for _, file in sorted(commit.files.items())]
        parts += sorted(labels.dead.get(commit.shard, ()))
        parts += [inputs] if inputs else []
        states.append(ShardState(commit.shard, hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]))
    return states


@dataclass(frozen=True)
class Ledger:
    """The records of a pass, in a hidden folder of its destination."""

    destination: Storage

    def begin(self, record: PassRecord) -> None:
        """Record the pass, or go on with it. Raises PassMismatch if the destination holds another one."""
        data = (json.dumps(asdict(record), indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()
        if self.destination.create(RECORD, data):
            return
        found, wanted = (_flat(json_object(each, RECORD)) for each in (self.destination.read(RECORD), data))
        names = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        if names:
            lines = "".join(f"\n  {name}: there {found.get(name)!r}, now {wanted.get(name)!r}" for name in names)
            raise PassMismatch(
                f"{public_uri(self.destination.uri)} already holds another {found.get('kind', 'pass')}:{lines}\n"
                "Give another destination, or delete this one."
            )

    def receipts(self) -> dict[int, list[str]]:
        """The states in which each shard was done: one, or two if a pass was killed while it renewed the shard."""
        found: dict[int, list[str]] = {}
        for entry in self.destination.list(f"{FOLDER}/shards"):
            if match := _RECEIPT.fullmatch(entry.key):
                found.setdefault(int(match[1]), []).append(match[2])
        return found

    def read(self, shard: int, state: str) -> bytes:
        """What a shard gave."""
        return self.destination.read(_receipt_key(shard, state))

    def write(self, shard: int, state: str, result: bytes, replaces: Iterable[str] = ()) -> None:
        """Say that a shard is done. replaces: the states in which it was done before."""
        self.destination.write(_receipt_key(shard, state), result)
        for old in replaces:
            self.destination.delete(_receipt_key(shard, old))

    def results(self, states: list[ShardState], ahead: int = 1000) -> Iterator[tuple[int, bytes]]:
        """What the shards gave, in order. ahead: results held at once."""
        with ThreadPoolExecutor(16) as pool:
            for first in range(0, len(states), ahead):
                some = states[first : first + ahead]
                yield from zip(
                    [each.shard for each in some], pool.map(lambda each: self.read(*each), some), strict=True
                )


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record, with its settings among them."""
    settings = record.get("settings")
    return {**record, "settings": None, **settings} if isinstance(settings, dict) else record


def _receipt_key(shard: int, state: str) -> str:
    return f"{FOLDER}/shards/{shard:06d}-{state}.receipt"
