"""label-studio: its own SDK decodes the brush strokes."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from exports import NAMES, exported, masks, spread_confidence

from proxyclip.dataset.reading.labels import Labels
from proxyclip.export.formats.label_studio import _address
from proxyclip.export.target import Target

INSTALL = "label-studio-sdk is not installed: pip install 'proxyclip[label-studio]'"


def test_brush_strokes_are_the_mask_and_have_scores(output, tmp_path):
    brush = pytest.importorskip("label_studio_sdk.converter.brush", reason=INSTALL)
    folder, confidence = exported(output, tmp_path / "to", "label-studio"), spread_confidence(output)
    view = ElementTree.parse(folder / "config.xml").getroot()
    assert [each.get("value") for each in view.iter("Label")] == NAMES
    images, (labels,) = {each.get("name") for each in view.iter("Image")}, view.iter("BrushLabels")
    stored, wanted = {image.uri: image for image in Labels.open(output).images()}, masks(output)
    tasks = [task for path in sorted(folder.glob("tasks/*.json")) for task in json.loads(path.read_text())]
    assert sorted(task["data"]["uri"] for task in tasks) == sorted(stored)
    for task in tasks:
        uri, (prediction,) = task["data"]["uri"], task["predictions"]
        assert prediction["score"] == pytest.approx(stored[uri].mean_confidence, abs=6e-5)
        mask = np.full_like(wanted[uri], 255)
        for each in prediction["result"]:
            assert each["to_name"] in images
            assert each["from_name"] == labels.get("name")
            flat = {**each, **each["value"]}
            (layer,) = brush.decode_from_annotation(each["from_name"], [flat]).values()
            where = layer == 255
            assert (where | (layer == 0)).all()
            mask[where] = NAMES.index(each["value"]["brushlabels"][0])
            assert each["score"] == pytest.approx(confidence[uri][where].mean() / 255, abs=6e-5)
        assert (mask == wanted[uri]).all()


@pytest.mark.parametrize(
    ("images", "prefix", "address"),
    [
        ("/data/my photos", None, "/data/local-files/?d=data/my%20photos/more/%C3%A4%20b%3Cscript%3E.jpg"),
        ("s3://bucket/photos", None, "s3://bucket/photos/more/ä b<script>.jpg"),
        ("/data", "https://host/x/", "https://host/x/more/%C3%A4%20b%3Cscript%3E.jpg"),
    ],
)
def test_images_have_addresses(images, prefix, address):
    target = Target("ours", ("sky",), ((0, 0, 0),), 255, images, "/to", image_prefix=prefix)
    assert _address(target, "more/ä b<script>.jpg") == address
