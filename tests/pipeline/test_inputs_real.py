"""258 photographs in every form, on a disk and in a store, killed and resumed: the same masks."""

from __future__ import annotations

import dataclasses
import uuid

import pytest
from chaos import ChaosCluster, Strike, run_job
from corpora import FORMS, pack
from labelling import command, embedded, small_options
from reference import SHARED

from proxyclip.dataset.commits import committed
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.storage.store import Storage

PHOTOGRAPHS = SHARED / "real" / "msrc16-dev" / "images"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PHOTOGRAPHS.exists(), reason=f"no photographs in {PHOTOGRAPHS}"),
]


@pytest.fixture(scope="module")
def cluster(s3):
    """Its processes have the environment of the S3 server."""
    chaos = ChaosCluster(num_nodes=1, cpus_per_node=2)
    yield chaos
    chaos.shutdown()


@pytest.fixture(scope="module")
def results(s3, tmp_path_factory):
    """The place of each kind, and what was found so far."""
    disk = Storage(str(tmp_path_factory.mktemp("disk")))
    return {"disk": disk, "s3": Storage(s3.uri(f"bucket/{uuid.uuid4().hex}"))}, {}


@pytest.mark.parametrize("kind", ["disk", "s3"])
@pytest.mark.parametrize("form", FORMS)
def test_photographs_give_the_same_masks_in_every_form_and_place(cluster, results, tmp_path, form, kind):
    places, found = results
    corpus = pack(PHOTOGRAPHS, places[kind], form, parts=5)
    (tmp_path / "images").mkdir()
    options = embedded(small_options(tmp_path / "images", shard_size=16, address=cluster.address))
    output = f"{places[kind].uri}/labels-{form}"
    options = dataclasses.replace(options, input=corpus.input, output=output)
    kill = Strike("driver", lambda: len(committed(Storage(output))) >= 3)
    ended = run_job(cluster, command(options)[1:], [kill])
    assert ended.kills == ("driver",), ended.said
    done = len(committed(Storage(output)))
    assert 3 <= done < 17, "the run ended before it was killed"
    ended = run_job(cluster, command(options)[1:])
    assert ended.code == 0, ended.said
    rows = corpus.results(output)
    assert rows.keys() == {
        path.relative_to(PHOTOGRAPHS).as_posix() for path in PHOTOGRAPHS.rglob("*") if path.is_file()
    }
    assert len(rows) == 258
    assert rows == found.setdefault("rows", rows)
    assert verify(Storage(output)).problems == []
