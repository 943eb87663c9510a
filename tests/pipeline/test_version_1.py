"""An output of the first schema version, begun by an earlier proxyclip: it opens, verifies, resumes and relabels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from labelling import files, labels

from proxyclip import MaskDataset
from proxyclip.dataset.commits import committed
from proxyclip.dataset.upkeep.status import status
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.relabel.options import RelabelOptions
from proxyclip.pipeline.relabel.run import relabel
from proxyclip.pipeline.run import label
from proxyclip.storage.store import Storage

pytestmark = pytest.mark.usefixtures("s3", "one_cluster")  # in this order: the cluster's workers need the address

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "version_1"
DEMO = ROOT / "proxyclip" / "demo"
VOCABULARY = DEMO / "vocabulary.json"
PHOTOS, LABELS = "s3://version-1/photos", "s3://version-1/labels"
SIZES = {"short_side": 112, "crop": 112, "stride": 56, "shard_size": 2, "threads": 1}


@pytest.fixture
def output(s3):
    """The output where it was written, with nothing else beside it."""
    s3.uri("version-1/photos")
    for place in (PHOTOS, LABELS):
        for entry in list(Storage(place).list()):
            Storage(place).delete(entry.key)
    for path in (path for path in KEPT.rglob("*") if path.is_file() and path.name != "README.md"):
        folder, _, key = str(path.relative_to(KEPT)).partition("/")
        data = path.read_bytes().replace(b"local-dir:DEMO", f"local-dir:{DEMO}".encode())  # where CLIP lies here
        Storage(f"s3://version-1/{folder}").write(key, data)
    return LABELS


def test_it_opens_and_verifies(output):
    assert json.loads(Storage(output).read("run.json"))["schema_version"] == 1
    report = verify(Storage(output))
    assert (report.images, report.problems) == (4, [])
    assert report.unfinished == ["1 of 3 shards are not labelled yet", "1 of 3 shards have no features yet"]
    found = status(Storage(output))
    assert (found.totals.planned, found.totals.labelled, found.totals.failed) == (6, 3, 1)
    samples = MaskDataset(output)
    assert [sample["uri"] for sample in samples] == ["scene-0.jpg", "scene-1.jpg", "scene-2.jpg"]
    assert all(len(np.unique(sample["mask"])) > 1 for sample in samples)


def test_it_goes_on_where_it_was_stopped(output):
    before = files(output)
    options = LabelOptions(
        input=PHOTOS, output=output, vocabulary=str(VOCABULARY), preset="demo", keep_features=True, **SIZES
    )
    summary = label(options)
    after = files(output)
    assert {key: after[key] for key in before} == before
    assert sorted(committed(Storage(output))) == [0, 1, 2]
    assert (summary.labelled, summary.failed) == (5, 1)
    report = verify(Storage(output))
    assert (report.images, report.problems, report.unfinished) == (6, [], [])


def test_its_features_are_relabelled(output, tmp_path):
    (tmp_path / "two.txt").write_text("sky\ngrass")
    relabel(RelabelOptions(source=output, output=str(tmp_path / "new"), vocabulary=(str(tmp_path / "two.txt"),)))
    masks = labels(tmp_path / "new")
    assert sorted(masks) == ["scene-0.jpg", "scene-1.jpg", "scene-2.jpg"]
    assert all(set(np.unique(mask)) <= {0, 1} for mask in masks.values())
