"""fiftyone: masks one higher than the classes, and a script that FiftyOne runs."""

from __future__ import annotations

import json
import runpy
import sys

import numpy as np
import pytest
from exports import NAMES, exported, label, masks
from PIL import Image

from proxyclip.dataset.reading.labels import Labels


def one_higher(mask, ignore=255):
    return np.where(mask == ignore, 0, mask.astype(int) + 1)


def test_masks_hold_the_class_plus_one(output, tmp_path):
    folder, wanted = exported(output, tmp_path / "to", "fiftyone"), masks(output)
    lines = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert sorted(line["uri"] for line in lines) == sorted(wanted)
    for line in lines:
        with Image.open(folder / line["mask"]) as found:
            assert found.mode == "L"
            assert (np.array(found) == one_higher(wanted[line["uri"]])).all()


@pytest.mark.parametrize("count", [255, 256])
def test_the_highest_class_fits(tmp_path, count):
    output = label(tmp_path, ["a.jpg"], names=[f"class {number}" for number in range(count)])
    found = np.array(Image.open(exported(output, tmp_path / "to", "fiftyone") / "labels" / "a.png"))
    assert (found == one_higher(masks(output)["a.jpg"], 255 if count == 255 else 65535)).all()


def test_the_script_makes_samples_whose_masks_fiftyone_reads(output, tmp_path, monkeypatch):
    """All but the database, which needs MongoDB."""
    fo = pytest.importorskip("fiftyone", reason="fiftyone is not installed: pip install fiftyone")
    made = []

    class Kept:
        def __init__(self, name, persistent):
            assert persistent

        def add_samples(self, samples):
            made.extend(samples)

    monkeypatch.setattr(fo, "Dataset", Kept)
    script = exported(output, tmp_path / "to", "fiftyone") / "import_fiftyone.py"
    monkeypatch.setattr(sys, "argv", [str(script)])
    dataset = runpy.run_path(str(script))["dataset"]
    assert dataset.default_mask_targets == dict(enumerate(NAMES, 1))
    wanted, images = masks(output), Labels.open(output).record.input
    assert {sample.filepath for sample in made} == {f"{images}/{uri}" for uri in wanted}
    for sample in made:
        assert (sample.labels.get_mask() == one_higher(wanted[sample.filepath[len(images) + 1 :]])).all()


def test_the_script_can_be_read_without_fiftyone(output, tmp_path):
    text = (exported(output, tmp_path / "to", "fiftyone") / "import_fiftyone.py").read_text(encoding="utf-8")
    compile(text, "import_fiftyone.py", "exec")
    assert repr(NAMES[3]) in text
