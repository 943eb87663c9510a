"""Heads learned from corpora whose classes are known Gaussians: they must beat the text, or stay with it."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from gaussians import DIM, ENCODER, MEANS, NAMES, SCALE, accuracy, draw, labels, sums, taught, vocabulary

from proxyclip.config import DecodeConfig
from proxyclip.models.adaptation.fit import SHRINKAGES, agreement, choose
from proxyclip.models.adaptation.image_sums import ImageSums
from proxyclip.models.adaptation.learn import learn
from proxyclip.models.adaptation.patches import Patches
from proxyclip.models.adaptation.statistics import Statistics
from proxyclip.models.decoding.decoder import Decoder
from proxyclip.models.features import DenseFeatures, EncodedFeatures
from proxyclip.models.windows import plan_windows


@pytest.fixture(scope="module")
def words():
    return vocabulary()


@pytest.fixture(scope="module")
def corpus():
    return draw(60)


@pytest.fixture(scope="module")
def lesson(corpus, words):
    return taught(corpus, words)


def test_a_head_beats_the_text_on_its_corpus_and_on_other_images(corpus, words, lesson):
    others = draw(30, first=1000)
    for images in (corpus, others):
        assert accuracy(images, words) < 0.93
        assert accuracy(images, words, lesson.head) > 0.98
    assert lesson.head.adapted.all()
    assert lesson.remarks == ()


def test_a_head_beats_the_text_with_compressed_features_too(corpus, words, lesson):
    first = Statistics.empty(len(NAMES), DIM)
    for image in corpus:
        stored = EncodedFeatures.of(image.features, "compact").decoded()
        first.add(ImageSums(words, SCALE).of(image.uri, stored))
    assert accuracy(corpus, words, learn(first, words, SCALE, ENCODER, {}).head) > 0.98


def test_the_head_of_a_few_images_stays_close_to_the_text_and_says_so(words):
    few = draw(12)
    found = taught(few, words)
    assert found.head.provenance["trust"] == 12 / 32
    assert "12 images are few" in found.remarks[0]
    assert accuracy(few, words, found.head) > accuracy(few, words)


def test_classes_without_evidence_keep_their_text_and_cost_the_others_nothing(words):
    images = draw(60, present=(0, 1, 2))
    found = taught(images, words)
    kept = set(found.head.fallbacks)
    assert kept
    assert kept <= {"water", "stone", "lamp"}
    assert ", ".join(found.head.fallbacks) in found.remarks[-1]
    assert accuracy(images, words, found.head) >= accuracy(images, words)
    fallback = [NAMES.index(name) for name in kept]
    found_there = np.mean([np.isin(mask, fallback).mean() for mask in labels(images, words, found.head)])
    assert found_there <= np.mean([np.isin(mask, fallback).mean() for mask in labels(images, words)]) + 0.005


def test_a_corpus_of_one_class_is_labelled_as_by_the_text(words):
    images = draw(40, present=(0,))
    found = taught(images, words)
    assert not found.head.adapted.any()
    assert "two at least" in found.remarks[0]
    for mask, text in zip(labels(images, words, found.head), labels(images, words), strict=True):
        assert (mask == text).all()


def test_a_singular_covariance_falls_back_to_the_text(corpus, words):
    first = sums(corpus[:40], words)
    mean = first.sums.sum(axis=(0, 1)) / first.mass.sum()
    first.moments[:] = np.outer(mean, mean)[np.triu_indices(DIM)] * first.mass.sum()
    first.sums[:] = first.mass[..., None] * mean
    found = learn(first, words, SCALE, ENCODER, {})
    assert "singular" in found.remarks[0]
    assert not found.head.adapted.any()
    assert np.isfinite(found.head.weights).all()


def test_no_image_is_an_error(words):
    with pytest.raises(ValueError, match="no images"):
        learn(Statistics.empty(len(NAMES), DIM), words, SCALE, ENCODER, {})


def test_features_that_are_not_finite_are_named(corpus, words):
    patches = corpus[0].features.features.clone()
    patches[0, 0, 3, 3] = torch.nan
    broken = DenseFeatures(patches, corpus[0].features.plan, corpus[0].features.resized)
    with pytest.raises(ValueError, match=r"0000\.jpg: its features have numbers that are not finite"):
        ImageSums(words, SCALE).of("0000.jpg", broken)


def test_sums_and_head_are_the_same_bytes_in_any_order_and_grouping(corpus, words):
    each = [sums([image], words) for image in corpus[:12]]
    orders = [range(12), reversed(range(12)), np.random.default_rng(0).permutation(12)]
    found = set()
    for order, size in itertools.product(map(list, orders), (1, 5)):
        total = Statistics.empty(len(NAMES), DIM)
        for first in range(0, 12, size):
            part = Statistics.empty(len(NAMES), DIM)
            for index in order[first : first + size]:
                part.add(each[index], 4096)
            total.add(Statistics.from_bytes(part.to_bytes()), 4096)
        found.add((total.to_bytes(), learn(total, words, SCALE, ENCODER, {}).head.data))
    assert len(found) == 1


def test_statistics_of_other_classes_do_not_add(corpus, words):
    with pytest.raises(ValueError, match="cannot be added"):
        sums(corpus[:1], words).add(sums(corpus[:1], vocabulary(NAMES[:4])))
    with pytest.raises(ValueError, match="damaged"):
        Statistics.from_bytes(b"no safetensors")


def test_the_settings_are_those_whose_halves_agree_most(corpus, words):
    first = sums(corpus, words)
    choice = choose(first)
    assert {each for each, _ in choice.tried} == set(SHRINKAGES)
    assert agreement(first, choice.shrinkage) == pytest.approx(max(found for _, found in choice.tried), abs=1e-4)
    # Halves that were given the same sums agree on every patch; halves of noise do not.
    same = dataclasses.replace(first, mass=first.mass[[0, 0]], sums=first.sums[[0, 0]])
    assert agreement(same, SHRINKAGES[0]) == 1
    noise = np.random.default_rng(0).permuted(first.sums[1], axis=0)
    assert agreement(dataclasses.replace(first, sums=np.stack([first.sums[0], noise])), SHRINKAGES[0]) < 0.9


def test_a_second_round_is_no_worse_than_the_first(corpus, words, lesson):
    first = learn(sums(corpus, words), words, SCALE, ENCODER, {})
    assert accuracy(corpus, words, lesson.head) >= accuracy(corpus, words, first.head) - 0.002
    assert lesson.head.provenance["rounds"] == 2


@pytest.mark.parametrize("hw", [(64, 64), (64, 150), (200, 90)])
def test_the_areas_of_patches_add_up_to_one_image(hw):
    from gaussians import WINDOWS

    plan = plan_windows(hw, WINDOWS)
    grid = (len(plan.y.starts), len(plan.x.starts), plan.y.padded // 8, plan.x.padded // 8, DIM)
    features = DenseFeatures(torch.nn.functional.normalize(torch.randn(grid), dim=-1), plan, torch.zeros(3, 1, 1))
    dense, stored = Patches.of(features), Patches.of(EncodedFeatures.of(features, "exact").decoded())
    assert dense.areas.sum() == pytest.approx(1, abs=1e-5)
    assert stored.areas.sum() == pytest.approx(1, abs=1e-5)
    assert len(stored.areas) <= len(dense.areas)


def test_a_head_labels_with_few_active_classes_as_its_scores_say(corpus, words, lesson):
    """The bias of a head stays with its class when other classes are left out."""
    decoder = Decoder(DecodeConfig(logit_scale=SCALE, active=3), head=lesson.head)
    for image in corpus[:4]:
        winner = decoder.labels(image.features, words).winner
        scores = decoder.logits(image.features, words)
        by_class = torch.stack([scores[lesson.head.row_class == index].amax(0) for index in range(len(NAMES))])
        left_out = [index for index in range(len(NAMES)) if index not in set(winner.unique().tolist())]
        assert len(left_out) >= len(NAMES) - 3
        by_class[left_out] = -torch.inf
        assert (winner == by_class.argmax(0)).all()


def test_a_head_that_labels_as_the_text_does_needs_no_second_round(words):
    """Of classes that the text tells apart already."""
    sure = dataclasses.replace(words, embeddings=MEANS.repeat(2, axis=0).astype(np.float32))
    images = draw(60)
    assert accuracy(images, sure) > 0.98
    found = taught(images, sure)
    assert found.head.provenance["rounds"] == 1
    assert found.head.provenance["like_the_text"] > 0.95
    assert found.head.adapted.all()
    assert accuracy(images, sure, found.head) > 0.98
