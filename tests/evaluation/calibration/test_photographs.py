"""Thresholds from half of the photographs, judged on the other half: what was asked for, but for chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from reference import SHARED

from proxyclip.config import ModelConfig, SegmenterConfig
from proxyclip.dataset.masks import spread_confidence
from proxyclip.evaluation.calibration.choosing import Rule, choose, judge
from proxyclip.evaluation.calibration.evidence import Evidence, count_image
from proxyclip.evaluation.labels.coding import Coding
from proxyclip.models.decoding.reduce import reduce_confidence
from proxyclip.models.segmenter import Segmenter
from proxyclip.vocabulary.names import Vocabulary

REAL = SHARED / "real"
PROXY = {"proxy": "deit_tiny_patch16_224", "proxy_weights": str(REAL / "vfm-deit-tiny" / "model.safetensors")}

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="the real weights and photographs are not here")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["proxyclip", "clearclip"])
def test_the_kept_pixels_of_the_other_half_are_right(method, record_property):
    proxy = PROXY if method == "proxyclip" else {"proxy": None}
    model = ModelConfig(method, clip=f"local-dir:{REAL / 'clip-deit-tiny'}", **proxy)
    segmenter = Segmenter.from_config(SegmenterConfig(model))
    vocabulary = Vocabulary.load(REAL / "msrc16.json", REAL / "msrc16.embeddings.safetensors")
    coding = Coding.indices(16, [255])

    def counts(path):
        found = segmenter.predict(path, vocabulary)
        stored = reduce_confidence(torch.from_numpy(found.confidence), 4).numpy()
        label = coding.decode(np.asarray(Image.open(REAL / "msrc16-dev" / "labels" / f"{path.stem}.png")))
        return count_image(path.name, label, found.mask, spread_confidence(stored, found.mask.shape, 4), 16)

    evidence = Evidence.of(16, map(counts, (REAL / "msrc16-dev" / "images").iterdir()))
    even = np.arange(evidence.num_images) % 2 == 0
    for half in (even, ~even):
        judged = judge(evidence.only(~half), choose(evidence.only(half), Rule(0.9)))
        record_property("kept right, share kept", (judged.precision, judged.share))
        assert judged.precision >= 0.88
        assert judged.share > 0.25
