"""webdataset: the `webdataset` package reads the tar files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from exports import NAMES, exported, masks
from PIL import Image

from proxyclip.dataset.masks import confidence_from_png
from proxyclip.dataset.reading.labels import Labels

wds = pytest.importorskip("webdataset")


def test_a_sample_has_image_mask_confidence_and_facts(output, tmp_path):
    folder = exported(output, tmp_path / "to", "webdataset")
    assert json.loads((folder / "classes.json").read_text()) == {"classes": NAMES, "ignore": 255}
    stored = {image.uri: image for image in Labels.open(output).images()}
    shards = [str(path) for path in sorted(folder.glob("*.tar"))]
    assert len(shards) == 2
    seen = []
    for sample in wds.WebDataset(shards, shardshuffle=False).decode("pil"):
        uri = sample["json"]["uri"]
        image = stored[uri]
        # Its decoder makes RGB of everything: gray stays gray.
        assert (np.array(sample["mask.png"]) == masks(output)[uri][:, :, None]).all()
        assert (np.array(sample["confidence.png"])[:, :, 0] == confidence_from_png(image.confidence)).all()
        assert sample["json"]["mean_confidence"] == pytest.approx(image.mean_confidence, abs=6e-5)
        (picture,) = (sample[key] for key in ("jpg", "png", "webp") if key in sample)
        original = Image.open(f"{Labels.open(output).record.input}/{uri}").convert("RGB")
        assert (np.array(picture.convert("RGB")) == np.array(original)).all()
        seen.append(uri)
    assert sorted(seen) == sorted(stored)
