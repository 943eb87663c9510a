"""huggingface: `datasets.load_dataset` opens the folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
from exports import NAMES, exported, label, masks
from PIL import Image

from proxyclip.dataset.masks import confidence_from_png
from proxyclip.dataset.reading.labels import Labels


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    return lambda folder: datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))


def test_images_masks_and_confidences_are_columns(output, tmp_path, load):
    folder = exported(output, tmp_path / "to", "huggingface")
    train = load(folder)["train"]
    assert json.loads((folder / "id2label.json").read_text()) == {str(i): name for i, name in enumerate(NAMES)}
    stored = {image.uri: image for image in Labels.open(output).images()}
    assert sorted(train["uri"]) == sorted(stored)
    for row in train:
        image = stored[row["uri"]]
        assert row["mask"].mode == "L"
        assert (np.array(row["mask"]) == masks(output)[row["uri"]]).all()
        assert (np.array(row["confidence"]) == confidence_from_png(image.confidence)).all()
        assert row["mean_confidence"] == pytest.approx(image.mean_confidence)
        original = Image.open(f"{Labels.open(output).record.input}/{row['uri']}")
        assert (np.array(row["image"]) == np.array(original)).all()


def test_masks_of_more_than_255_classes_have_16_bits(tmp_path, load):
    output = label(tmp_path, ["a.jpg"], names=[f"class {number}" for number in range(300)])
    (row,) = load(exported(output, tmp_path / "to", "huggingface"))["train"]
    assert (np.array(row["mask"]) == masks(output)["a.jpg"]).all()
