"""The decoder alone: labels from features and embeddings, without a network."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tiny import WINDOWS, random_image, random_vocabulary, tiny_clip, tiny_segmenter

from proxyclip.config import DecodeConfig, SegmenterConfig
from proxyclip.models.decoding.decoder import VOCABULARIES_KEPT, Decoder
from proxyclip.models.networks.clip import ClipEncoder
from proxyclip.vocabulary.names import Vocabulary

FIVE = dataclasses.replace(random_vocabulary(5), background=1)
CONFIGS = {
    "plain": DecodeConfig(),
    "thresholds": DecodeConfig(background_threshold=0.3, ignore_below=0.25),
    "thresholds of classes": DecodeConfig(background_threshold=0.2, thresholds=(0.25, 0.0, 0.3, 2.0, 0.21)),
    "areas": DecodeConfig(area_threshold=0.1),
    "refined": DecodeConfig(pamr_steps=2, pamr_dilations=(1, 4)),
    "guided": DecodeConfig(guided_radius=2),
    "presence": DecodeConfig(presence=1.0, active=3),
}


@pytest.fixture(scope="module")
def features():
    return tiny_segmenter().encode(random_image(90, 130))


def decoder(config=None, **kwargs):
    clip = ClipEncoder(tiny_clip())
    return Decoder(config or DecodeConfig(), mean=clip.mean, std=clip.std, **kwargs)


@pytest.mark.parametrize("name", CONFIGS)
def test_labels_are_those_of_the_segmenter(name, features):
    segmenter = tiny_segmenter(SegmenterConfig(windows=WINDOWS, decode=CONFIGS[name]))
    expected = segmenter.labels(features, FIVE)
    for found in (decoder(CONFIGS[name]).labels(features, FIVE), decoder().labels(features, FIVE, CONFIGS[name])):
        for field in ("winner", "confidence", "margin"):
            assert torch.equal(getattr(found, field), getattr(expected, field)), field
    assert torch.equal(decoder(CONFIGS[name]).logits(features, FIVE), segmenter.logits(features, FIVE))


def test_words_need_someone_to_embed_them(features):
    words = Vocabulary.from_names(["sky", "tree"], name="words")
    with pytest.raises(ValueError, match=r"'words' has no text embeddings.*with_embeddings"):
        decoder().labels(features, words)
    embeddings = torch.eye(2, 32)
    labels = decoder(embed=lambda vocabulary: embeddings).labels(features, words)
    expected = decoder().labels(features, words.with_embeddings(embeddings.numpy()))
    assert torch.equal(labels.winner, expected.winner)


def test_embeddings_of_another_clip_are_refused(features):
    other = Vocabulary.from_names(["a", "b"]).with_embeddings(np.eye(2, 16, dtype=np.float32))
    with pytest.raises(ValueError, match="embeddings of width 16, but the image features have width 32"):
        decoder().labels(features, other)


def test_a_vocabulary_is_embedded_once_while_it_is_among_the_last_used():
    embedded = []

    def embed(vocabulary):
        embedded.append(vocabulary.name)
        return torch.eye(1, 32)

    one = decoder(embed=embed)
    words = [Vocabulary.from_names(["sky"], name=str(index)) for index in range(VOCABULARIES_KEPT + 1)]
    one.queries(words[0])
    for vocabulary in words[1:-1]:
        one.queries(vocabulary)
        one.queries(words[0])
    assert embedded == [vocabulary.name for vocabulary in words[:-1]]
    one.queries(words[-1])  # takes the place of words[1], which was used longest ago
    one.queries(words[0])
    one.queries(words[1])
    assert embedded == [str(index) for index in [*range(VOCABULARIES_KEPT + 1), 1]]


@pytest.mark.parametrize("num_classes", [5, 300])
def test_a_pixel_below_the_threshold_of_its_class_is_ignored(features, num_classes):
    vocabulary = random_vocabulary(num_classes)
    plain = decoder().labels(features, vocabulary)
    values = np.full(num_classes, float(plain.confidence.median()))
    values[0], values[1] = 0.0, 2.0
    found = decoder().labels(features, vocabulary, DecodeConfig(thresholds=tuple(values)))
    of_pixel = values.astype(np.float32)[plain.winner.numpy()]
    dropped = plain.confidence.numpy() < of_pixel
    ignore = 255 if num_classes == 5 else 65535
    np.testing.assert_array_equal(found.winner.numpy(), np.where(dropped, ignore, plain.winner.numpy()))
    assert 0.1 < dropped.mean() < 0.9
    assert torch.equal(found.confidence, plain.confidence)


def test_thresholds_of_another_vocabulary_are_refused(features):
    with pytest.raises(ValueError, match="There are 3 thresholds, but vocabulary 'custom' has 5 classes"):
        decoder().labels(features, FIVE, DecodeConfig(thresholds=(0.1, 0.2, 0.3)))
