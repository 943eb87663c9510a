"""From an image to its labels: any image, alone or with others, from any source."""

from __future__ import annotations

import dataclasses
import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import WINDOWS, random_image, random_vocabulary, save_local_models, tiny_clip, tiny_segmenter, tiny_vit

from proxyclip.config import DecodeConfig, ModelConfig, SegmenterConfig
from proxyclip.models.segmenter import Segmenter
from proxyclip.recipes.methods import METHODS
from proxyclip.vocabulary.names import Vocabulary


def seen_vocabulary() -> Vocabulary:
    """Five classes whose embeddings are the features at five places of `random_image(90, 130)`, minus the mean."""
    features = tiny_segmenter().encode(random_image(90, 130)).features.flatten(0, 3)
    places = features[:: len(features) // 5][:5] - features.mean(dim=0)
    return Vocabulary.from_names(list("abcde")).with_embeddings(places.numpy())


FIVE = seen_vocabulary()
SIZES = [(100, 170), (112, 112), (300, 60), (40, 40), (3, 500), (1, 1)]


@pytest.fixture(scope="module")
def segmenter():
    return tiny_segmenter()


def with_method(method, windows=WINDOWS):
    config = SegmenterConfig(ModelConfig(method=method), windows)
    return Segmenter(tiny_clip(), tiny_vit(), config)


@pytest.mark.parametrize("method", METHODS)
def test_an_image_is_the_same_to_the_bit_alone_and_in_company(method):
    segmenter = with_method(method)
    images = [random_image(*size, seed=index) for index, size in enumerate(SIZES)]
    together = segmenter.encode_batch(images)
    backwards = segmenter.encode_batch(images[::-1])[::-1]
    for image, features, again in zip(images, together, backwards, strict=True):
        alone = segmenter.encode(image)
        assert alone.plan == features.plan
        assert torch.equal(alone.features, features.features)
        assert torch.equal(alone.features, again.features)
        results = [segmenter.decode(each, FIVE) for each in (alone, features)]
        np.testing.assert_array_equal(results[0].mask, results[1].mask)
        np.testing.assert_array_equal(results[0].confidence, results[1].confidence)


@pytest.mark.parametrize("size", [2, 3, 16])
def test_batches_of_a_gpu_give_every_window_to_its_image(segmenter, size, monkeypatch):
    """There, windows of several images share a batch, and the last batch is filled up."""
    images = [random_image(*shape, seed=index) for index, shape in enumerate(SIZES)]
    alone = segmenter.encode_batch(images)
    monkeypatch.setattr(segmenter, "windows_at_once", size)
    shapes = []
    encode = segmenter.encode_windows
    monkeypatch.setattr(segmenter, "encode_windows", lambda batch: (shapes.append(len(batch)), encode(batch))[1])
    for one, other in zip(alone, segmenter.encode_batch(images), strict=True):
        torch.testing.assert_close(other.features, one.features, rtol=0, atol=1e-4)
    assert set(shapes) == {size}


def test_only_a_cpu_takes_windows_one_by_one():
    assert tiny_segmenter(device="cpu", batch_windows=8).windows_at_once == 1
    assert tiny_segmenter(device="meta", batch_windows=8).windows_at_once == 8


def test_no_images_give_no_features(segmenter):
    assert segmenter.encode_batch([]) == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("image", ["black", "white", "grey", "noise", "two colours"])
def test_any_image_has_finite_labels(method, image):
    pixels = {
        "black": np.zeros((90, 130, 3), np.uint8),
        "white": np.full((90, 130, 3), 255, np.uint8),
        "grey": np.full((90, 130, 3), 127, np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8),
        "two colours": np.repeat(np.array([[[0, 0, 0], [255, 0, 0]]], np.uint8), 65, axis=1).repeat(90, axis=0),
    }[image]
    segmenter = with_method(method)
    features = segmenter.encode(pixels)
    assert torch.isfinite(features.features).all()
    torch.testing.assert_close(features.features.norm(dim=-1), torch.ones(features.features.shape[:-1]))
    result = segmenter.decode(features, FIVE)
    assert result.mask.max() < 5
    assert result.confidence.min() > 0.2 - 1e-5
    assert result.margin.min() >= 0
    assert (result.margin <= result.confidence).all()
    assert result.confidence.max() <= 1


@pytest.mark.parametrize("method", ["proxyclip", "clearclip"])
@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (3, 500), (20, 30), (111, 113)])
def test_a_mask_has_the_size_of_its_image(method, size):
    result = with_method(method).predict(random_image(*size), FIVE)
    assert result.mask.shape == result.confidence.shape == result.margin.shape == size
    assert result.mask.dtype == np.uint8
    assert result.confidence.dtype == result.margin.dtype == np.float32


@pytest.mark.parametrize("method", ["proxyclip", "clearclip"])
@pytest.mark.parametrize("size", [(60, 80), (3, 500)])
def test_the_whole_image_as_one_window(method, size):
    segmenter = with_method(method, dataclasses.replace(WINDOWS, crop=0))
    assert segmenter.predict(random_image(*size), FIVE).mask.shape == size


def test_labels_follow_what_is_seen(segmenter):
    """A vocabulary made of the features at two places finds these places."""
    image = np.zeros((112, 224, 3), np.uint8)
    image[:, 112:] = (250, 30, 30)
    features = segmenter.encode(image)
    left, right = features.features[0, 0, 7, 2], features.features[0, -1, 7, -3]
    vocabulary = Vocabulary.from_names(["left", "right"]).with_embeddings(torch.stack([left, right]).numpy())
    mask = segmenter.decode(features, vocabulary).mask
    assert (mask[:, :90] == 0).mean() > 0.9
    assert (mask[:, 134:] == 1).mean() > 0.9


def test_encoding_and_decoding_apart_are_predicting(segmenter):
    image = random_image(90, 130)
    predicted, decoded = segmenter.predict(image, FIVE), segmenter.decode(segmenter.encode(image), FIVE)
    np.testing.assert_array_equal(predicted.mask, decoded.mask)
    assert len(np.unique(predicted.mask)) > 1
    assert segmenter.logits(segmenter.encode(image), FIVE).shape == (5, 90, 130)


def test_features_decode_at_another_size(segmenter):
    features = segmenter.encode(random_image(90, 130))
    larger = features.at_size((180, 260))
    assert features.image_hw == (90, 130)
    assert larger.image_hw == (180, 260)
    mask, large = segmenter.decode(features, FIVE).mask, segmenter.decode(larger, FIVE).mask
    assert large.shape == (180, 260)
    assert (large[::2, ::2] == mask).mean() > 0.95


def test_pixels_of_little_probability_become_background(segmenter):
    vocabulary = dataclasses.replace(FIVE, background=2)
    features = segmenter.encode(random_image(90, 130))
    plain = segmenter.decode(features, vocabulary)
    threshold = float(np.median(plain.confidence))
    result = segmenter.decode(features, vocabulary, DecodeConfig(background_threshold=threshold))
    np.testing.assert_array_equal(result.mask, np.where(plain.confidence < threshold, 2, plain.mask))
    np.testing.assert_array_equal(result.confidence, plain.confidence)
    assert (result.mask != plain.mask).any()


def test_a_background_threshold_wants_a_background(segmenter):
    features = segmenter.encode(random_image(40, 40))
    with pytest.raises(ValueError, match=r"background_threshold is 0.2, but vocabulary 'custom' has no background"):
        segmenter.decode(features, FIVE, DecodeConfig(background_threshold=0.2))


@pytest.mark.parametrize(("num_classes", "dtype", "ignore"), [(5, np.uint8, 255), (255, np.uint8, 255)])
@pytest.mark.parametrize("background", [None, 1])
def test_pixels_below_ignore_below_are_ignored(segmenter, num_classes, dtype, ignore, background):
    _check_ignore(segmenter, num_classes, dtype, ignore, background)


@pytest.mark.parametrize("num_classes", [256, 400])
def test_above_255_classes_masks_have_16_bits(segmenter, num_classes):
    mask = _check_ignore(segmenter, num_classes, np.uint16, 65535, None)
    assert ((mask > 255) & (mask < 65535)).any() or num_classes == 256


def _check_ignore(segmenter, num_classes, dtype, ignore, background):
    vocabulary = dataclasses.replace(random_vocabulary(num_classes), background=background)
    features = segmenter.encode(random_image(90, 130))
    plain = segmenter.decode(features, vocabulary)
    threshold = float(np.median(plain.confidence))
    options = DecodeConfig(background_threshold=threshold if background else 0, ignore_below=threshold)
    result = segmenter.decode(features, vocabulary, options)
    assert result.mask.dtype == dtype
    np.testing.assert_array_equal(result.mask, np.where(plain.confidence < threshold, ignore, plain.mask))
    assert 0.3 < (result.mask == ignore).mean() < 0.7
    return result.mask


@pytest.mark.parametrize("num_classes", [5, 400])
def test_the_overlay_shows_classes_and_leaves_ignored_pixels_alone(segmenter, num_classes):
    image = random_image(90, 130)
    vocabulary = random_vocabulary(num_classes)
    result = segmenter.predict(image, vocabulary)
    threshold = float(np.median(result.confidence))
    result = segmenter.decode(segmenter.encode(image), vocabulary, DecodeConfig(ignore_below=threshold), image=image)
    ignored = result.confidence < threshold
    picture = np.asarray(result.overlay(alpha=1.0))
    np.testing.assert_array_equal(picture[ignored], image[ignored])
    np.testing.assert_array_equal(picture[~ignored], vocabulary.colours[result.mask[~ignored]])


def test_an_overlay_needs_an_image(segmenter):
    with pytest.raises(ValueError, match=r"no image; use Segmenter\.predict"):
        segmenter.decode(segmenter.encode(random_image(40, 40)), FIVE).overlay()


def test_files_bytes_pictures_and_arrays_agree(segmenter, tmp_path):
    image = random_image(90, 130)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    path = tmp_path / "image.png"
    path.write_bytes(buffer.getvalue())
    expected = segmenter.predict(image, FIVE)
    for source in (path, str(path), buffer.getvalue(), Image.fromarray(image)):
        result = segmenter.predict(source, FIVE)
        np.testing.assert_array_equal(result.confidence, expected.confidence)
        np.testing.assert_array_equal(result.image, image)


@pytest.mark.parametrize("view", ["channels reversed", "flipped", "read-only"])
def test_views_of_arrays_are_taken_as_they_are(segmenter, view):
    """At a size that needs no resizing. OpenCV users turn BGR to RGB by `image[..., ::-1]`."""
    image = random_image(112, 130)
    seen = {"channels reversed": image[:, :, ::-1], "flipped": image[::-1], "read-only": image.view()}[view]
    if view == "read-only":
        seen.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = segmenter.encode(seen)
    assert torch.equal(features.features, segmenter.encode(seen.copy()).features)


@pytest.mark.parametrize("shape", [(90, 130), (90, 130, 4), (3, 90, 130), (0, 5, 3)])
def test_arrays_of_another_shape_are_refused(segmenter, shape):
    with pytest.raises(ValueError, match=r"not RGB uint8 of shape \(height, width, 3\)"):
        segmenter.encode(np.zeros(shape, np.uint8))


def test_words_and_their_embeddings_give_the_same(segmenter, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    words = Vocabulary.from_names(["sky", ["horse", "pony"]])
    embedded = segmenter.with_embeddings(words)
    features = segmenter.encode(random_image(90, 130))
    results = [segmenter.decode(features, vocabulary) for vocabulary in (words, embedded)]
    np.testing.assert_allclose(results[0].confidence, results[1].confidence, rtol=0, atol=1e-6)
    assert embedded.embeddings.shape == (3, 32)


@pytest.mark.parametrize("method", ["proxyclip", "clearclip"])
def test_bfloat16_trunks_agree_with_float32_on_nearly_all_labels(method):
    image = random_image(112, 200)
    masks = []
    for dtype in ("float32", "bfloat16"):
        config = SegmenterConfig(ModelConfig(method=method, dtype=dtype), WINDOWS)
        segmenter = Segmenter(tiny_clip(), tiny_vit(), config)
        features = segmenter.encode(image)
        assert features.features.dtype == torch.float32
        masks.append(segmenter.decode(features, FIVE).mask)
    assert (masks[0] == masks[1]).mean() > 0.9


def test_networks_are_loaded_by_configuration(segmenter, tmp_path):
    clip, proxy = save_local_models(tmp_path)
    config = SegmenterConfig(ModelConfig(clip=f"local-dir:{clip}", proxy=f"local-dir:{proxy}"), WINDOWS)
    image = random_image(90, 130)
    loaded = Segmenter.from_config(config)
    assert torch.equal(loaded.encode(image).features, segmenter.encode(image).features)
    own = dataclasses.replace(config, model=dataclasses.replace(config.model, method="maskclip", proxy=None))
    assert Segmenter.from_config(own).proxy is None
