"""The plain implementation of the benchmark says the same as the engine: they hold each other."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from performance.plain import PlainSegmenter
from performance.seeded import drawn_images, seeded_clip, seeded_proxy, seeded_vocabulary
from tiny import WINDOWS, tiny_clip, tiny_vit

from proxyclip.config import DecodeConfig, ModelConfig, SegmenterConfig
from proxyclip.models.networks.clip import ClipEncoder
from proxyclip.models.networks.proxy import TimmProxy
from proxyclip.models.segmenter import Segmenter
from proxyclip.vocabulary.names import Vocabulary


@pytest.mark.parametrize("image_hw", [(112, 112), (130, 200), (60, 90), (301, 150)])
def test_plain_and_engine_agree(image_hw):
    config = SegmenterConfig(windows=WINDOWS, decode=DecodeConfig(background_threshold=0.3))
    clip, proxy = ClipEncoder(tiny_clip()), TimmProxy(tiny_vit(), "offset")
    image = drawn_images(1, image_hw)[0]
    engine, plain = Segmenter(clip, proxy, config), PlainSegmenter(clip, proxy, config)
    features, plain_features = engine.encode(image), plain.encode(image)
    windows = features.features.flatten(0, 1)
    torch.testing.assert_close(windows, torch.stack(plain_features.windows), rtol=0, atol=1e-5)
    names = [f"class {n}" for n in range(5)] + [[f"synonym {n}" for n in range(3)]]
    queries = seeded_vocabulary(windows, 8).embeddings
    vocabulary = dataclasses.replace(Vocabulary.from_names(names).with_embeddings(queries), background=0)
    labels = plain.decode(plain_features, vocabulary)
    assert (engine.decode(features, vocabulary).mask == labels).mean() >= 0.999
    assert len(np.unique(labels)) >= 3


@pytest.mark.slow
def test_full_size_networks_agree_plain_and_fast_and_in_bfloat16():
    """CLIP ViT-B/16 and DINO ViT-B/8 at their real size, on an image of 500 x 375 with 21 queries."""
    config = SegmenterConfig()
    clip, proxy = seeded_clip(), seeded_proxy()
    image = drawn_images(1)[0]
    plain = PlainSegmenter(clip, proxy, config)
    expected = plain.encode(image)
    vocabulary = seeded_vocabulary(torch.stack(expected.windows), 21)
    labels = plain.decode(expected, vocabulary)
    engine = Segmenter(clip, proxy, config)
    features = engine.encode(image)
    error = (features.features.flatten(0, 1) - torch.stack(expected.windows)).norm(dim=-1)
    # A similarity within rounding of the cut may fall either way, and takes its whole row along.
    assert error.quantile(0.99) < 1e-4
    float32 = engine.decode(features, vocabulary).mask
    agreement = (float32 == labels).mean()
    print(f"plain against engine in float32: {100 * agreement:.3f} % of labels equal")
    assert agreement >= 0.999
    model = dataclasses.replace(ModelConfig(), dtype="bfloat16")
    half = Segmenter(clip, proxy, dataclasses.replace(config, model=model))
    agreement = (half.predict(image, vocabulary).mask == float32).mean()
    print(f"bfloat16 against float32: {100 * agreement:.2f} % of labels equal")
    assert agreement >= 0.985
