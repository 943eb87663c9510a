"""Passes over an output: each shard once, resumed, renewed when its images change."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from outputs import images, run

from proxyclip.dataset.reading.labels import Labels
from proxyclip.dataset.reading.passes import Ledger, PassMismatch, PassRecord
from proxyclip.pipeline.passes.run import run_pass
from proxyclip.storage.store import Storage


@dataclass(frozen=True)
class ListUris:
    """Writes a file for each image, and removes those of images that are gone."""

    source: str
    destination: str
    broken: tuple[int, ...] = ()

    def __call__(self, shard, before):
        if shard in self.broken:
            raise OSError(f"shard {shard} cannot be written")
        to = Storage(self.destination)
        for uri in {uri for data in before for uri in json.loads(data)}:
            to.delete(uri)
        uris = [image.uri for image in Labels.open(self.source).read(shard)]
        for uri in uris:
            to.write(uri, f"shard {shard}".encode())
        return json.dumps(uris).encode()


@pytest.fixture
def places(tmp_path):
    return str(tmp_path / "labels"), str(tmp_path / "there")


def files(place):
    return {entry.key: Storage(place).read(entry.key) for entry in Storage(place).list() if entry.key[0] != "."}


def do(places, address=None, **changes):
    labels = Labels.open(places[0])
    ledger = Ledger(Storage(places[1]))
    ledger.begin(PassRecord.of("list", labels, {}))
    summary = run_pass(labels, ledger, ListUris(*places, **changes), verb="listing", address=address)
    return summary, ledger


def test_a_pass_goes_on_where_it_stopped(places):
    run(Storage(places[0]), images(20))
    first, ledger = do(places, broken=(1, 4))
    assert not first.finished
    assert first.errors.keys() == {1, 4}
    assert "cannot be written" in first.errors[1]
    kept = files(places[1])
    second, ledger = do(places, broken=(0, 2, 3, 5, 6))  # these are done, and are not touched again
    assert second.finished
    assert files(places[1]).items() > kept.items()
    uris = [uri for _, data in ledger.results(second.states) for uri in json.loads(data)]
    assert sorted(uris) == sorted(files(places[1])) == [image.uri for image in Labels.open(places[0]).images()]


@pytest.mark.parametrize("address", [None, "local"])
def test_what_a_grown_output_no_longer_has_is_removed_and_what_moved_stays(places, address, monkeypatch):
    here = [*map(str, Path(__file__).parents[:2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, here)))  # Ray's workers unpickle `ListUris`
    run(Storage(places[0]), images(12))
    do(places)
    run(Storage(places[0]), [*images(3, etag="2"), *images(5, start=7)])
    summary, ledger = do(places, address)
    assert summary.finished
    assert sorted(files(places[1])) == sorted(image.uri for image in Labels.open(places[0]).images())
    assert all(len(states) == 1 for states in ledger.receipts().values())


def test_a_destination_of_another_pass_is_refused_with_the_difference(places):
    run(Storage(places[0]), images(6))
    do(places)
    labels = Labels.open(places[0])
    with pytest.raises(PassMismatch, match=r":\n  colour: there None, now 'red'\n"):
        Ledger(Storage(places[1])).begin(PassRecord.of("list", labels, {"colour": "red"}))


def test_a_pass_writes_nothing_into_the_labels(places):
    run(Storage(places[0]), images(6))
    before = files(places[0])
    do(places)
    assert files(places[0]) == before
