"""cvat: XML read back by datumaro, and without it as CVAT's documentation says."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from exports import NAMES, exported, label, masks

from proxyclip.dataset.reading.labels import Labels
from proxyclip.export.options import ExportOptions
from proxyclip.pipeline.export.run import export


def test_the_run_lengths_are_the_mask(output, tmp_path):
    root = ElementTree.parse(exported(output, tmp_path / "to", "cvat") / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert [name.text for name in root.findall("meta/task/labels/label/name")] == NAMES
    labels = json.loads((tmp_path / "to" / "labels.json").read_text(encoding="utf-8"))
    assert [(label["name"], label["type"]) for label in labels] == [(name, "mask") for name in NAMES]
    images = root.findall("image")
    assert [int(image.get("id")) for image in images] == list(range(6))
    for image in images:
        mask = np.full((int(image.get("height")), int(image.get("width"))), 255)
        for each in image.findall("mask"):
            left, top, width, height = (int(each.get(name)) for name in ("left", "top", "width", "height"))
            runs = [int(run) for run in each.get("rle").split(",")]
            where = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(height, width)
            mask[top : top + height, left : left + width][where] = NAMES.index(each.get("label"))
        assert (mask == masks(output)[image.get("name")]).all()


def test_datumaro_reads_the_masks(output, tmp_path):
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed: pip install datumaro")
    folder = exported(output, tmp_path / "to", "cvat")
    (tmp_path / "cvat").mkdir()
    (folder / "annotations.xml").rename(tmp_path / "cvat" / "annotations.xml")
    (tmp_path / "cvat" / "images").symlink_to(Labels.open(output).record.input)
    wanted = {str(Path(uri).with_suffix("")): mask for uri, mask in masks(output).items()}
    found = datumaro.Dataset.import_from(str(tmp_path / "cvat"), "cvat")
    assert {item.id for item in found} == wanted.keys()
    for item in found:
        mask = np.full_like(wanted[item.id], 255)
        for each in item.annotations:
            mask[each.image.astype(bool)] = each.label
        assert (mask == wanted[item.id]).all()


def test_a_name_that_xml_cannot_hold_is_listed(tmp_path):
    output = label(tmp_path, ["a.jpg", "b\x07.jpg"])
    summary = export(ExportOptions(output, str(tmp_path / "to"), "cvat"))
    assert (summary.exported, summary.failed, summary.exit_code) == (1, 1, 3)
    assert r'"b\u0007.jpg", "reason": "XML cannot hold' in (tmp_path / "to" / "failures.jsonl").read_text()
    ElementTree.parse(tmp_path / "to" / "annotations.xml")
