"""Stored features as a user opens them: a file of one image, and an output with many."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from outputs import begin, images
from tiny import random_image

import proxyclip
from proxyclip.config import WindowConfig
from proxyclip.dataset.features.record import FeatureRecord, begin_features, features_manifest, features_of
from proxyclip.dataset.features.shards import write_features
from proxyclip.dataset.rows import FEATURES, Failure, parquet_bytes
from proxyclip.images.listing import ImageRef
from proxyclip.models.codec import CODECS
from proxyclip.models.features import DenseFeatures, EncodedFeatures
from proxyclip.models.windows import plan_windows
from proxyclip.pipeline.features import features_row
from proxyclip.storage.store import Storage

RECORD = FeatureRecord("exact", 16, {"model": "ours"}, {"preset": "demo"})
WINDOWS = WindowConfig(short_side=40, long_side=100, crop=40, stride=24, pad_multiple=8)


def features_for(image: ImageRef) -> DenseFeatures:
    """Random features that follow from the name and version of an image, as its size does."""
    number = zlib.crc32(f"{image.uri} {image.etag}".encode())
    generator = torch.Generator().manual_seed(number)
    plan = plan_windows((40 + number % 30, 50 + number % 20), WINDOWS)
    shape = (len(plan.y.starts), len(plan.x.starts), plan.y.padded // 8, plan.x.padded // 8, 16)
    resized = torch.zeros(3, plan.y.resized, plan.x.resized, dtype=torch.uint8)
    return DenseFeatures(F.normalize(torch.randn(shape, generator=generator), dim=-1), plan, resized)


def plan(storage, listing):
    begin(storage).extend_plan(listing, 3)


def keep_features(storage, failing=()):
    """Keep the features of all pending shards, three images each."""
    begin_features(storage, RECORD)
    manifest = features_manifest(storage)
    for task in manifest.pending():
        for shard, planned in manifest.read_range(task):
            rows = [
                features_row(image.uri, image.etag, EncodedFeatures.of(features_for(image), "exact"))
                for image in planned
                if image.uri not in failing
            ]
            failed = [Failure(image.uri, "decode", "decode_failed", "no image") for image in planned]
            write_features(storage, shard, rows, [each for each in failed if each.uri in failing])


def assert_stored(found, image):
    expected = EncodedFeatures.of(features_for(image), "exact").decoded()
    assert torch.equal(found.coefficients, expected.coefficients)
    assert found.basis is None
    assert (found.plan, found.grid_hw, found.resized) == (expected.plan, expected.grid_hw, None)


@pytest.fixture
def output(tmp_path):
    """Eight images in shards of three; the second image failed."""
    storage = Storage(str(tmp_path / "out"))
    plan(storage, images(8))
    keep_features(storage, failing=["001.jpg"])
    return storage


def test_public_names_are_there():
    names = {"Decoder", "StoredFeatures", "load_features", "open_features", "save_features"}
    assert names <= set(proxyclip.__all__)
    assert dir(proxyclip) == sorted(proxyclip.__all__)
    assert all(getattr(proxyclip, name).__name__ == name for name in names)


def test_an_output_is_a_mapping_of_its_images(output):
    found = proxyclip.open_features(output.uri)
    assert isinstance(found, Mapping)
    expected = [image for image in images(8) if image.uri != "001.jpg"]
    assert list(found) == [image.uri for image in expected]
    assert len(found) == 7
    for image in reversed(expected):
        assert image.uri in found
        assert_stored(found[image.uri], image)
    for gone in ("001.jpg", "008.jpg", "no such name"):
        assert gone not in found
        assert found.get(gone) is None
        with pytest.raises(KeyError, match=gone):
            found[gone]


def test_only_the_newest_version_of_an_image_counts(output):
    """000 is removed, 001 works now, 002 fails now, 003 changed, 008 is new."""
    newer = images(2, start=1, etag="2")
    listing = [*newer, ImageRef("003.jpg", 11, "2"), *images(5, start=4)]
    plan(output, listing)
    before = proxyclip.open_features(output.uri)
    assert list(before) == ["004.jpg", "005.jpg", "006.jpg", "007.jpg"]  # the others wait for their new features
    keep_features(output, failing=["002.jpg"])
    found = proxyclip.open_features(output.uri)
    live = [image for image in listing if image.uri != "002.jpg"]
    assert list(found) == [image.uri for image in live]
    for image in live:
        assert_stored(found[image.uri], image)


def test_an_image_that_came_back_is_there_again(output):
    plan(output, images(7, start=1))
    plan(output, images(8))
    assert "000.jpg" not in proxyclip.open_features(output.uri)
    keep_features(output)
    assert_stored(proxyclip.open_features(output.uri)["000.jpg"], images(1)[0])


def file_of(output, shard):
    (key,) = (entry.key for entry in features_of(output).list("features") if f"/{shard:06d}-" in entry.key)
    return key


def test_a_shard_is_read_when_one_of_its_images_is_asked_for(output):
    kept = features_of(output)
    kept.delete(file_of(output, 1))
    found = proxyclip.open_features(output.uri)
    assert_stored(found["000.jpg"], images(1)[0])
    kept.delete(file_of(output, 0))
    assert_stored(found["002.jpg"], images(3)[2])  # the file was read once
    assert_stored(found["007.jpg"], images(8)[7])
    for missing in ("003.jpg", "000.jpg"):
        with pytest.raises(FileNotFoundError, match=r"features of shard [01]: .*--add-features makes them again"):
            found[missing]


def test_a_file_that_changed_is_refused(output):
    kept, key = features_of(output), file_of(output, 2)
    data = bytearray(kept.read(key))
    data[len(data) // 2] ^= 1
    kept.write(key, bytes(data))
    found = proxyclip.open_features(output.uri)
    assert_stored(found["003.jpg"], images(4)[3])
    with pytest.raises(ValueError, match=r"features of shard 2: .*was changed after it was committed"):
        found["006.jpg"]


def test_an_output_without_features_says_how_to_add_them(tmp_path):
    storage = Storage(str(tmp_path / "out"))
    plan(storage, images(3))
    with pytest.raises(FileNotFoundError, match=r"out has no features\. .*with --add-features"):
        proxyclip.open_features(storage.uri)


def test_a_folder_that_is_no_output_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no labelled corpus"):
        proxyclip.open_features(str(tmp_path))


@pytest.mark.parametrize("codec", CODECS)
def test_one_image_is_saved_and_decoded_again(codec, tmp_path):
    segmenter = proxyclip.Segmenter.from_preset("demo")
    vocabulary = segmenter.with_embeddings(proxyclip.Vocabulary.from_names(["sky", "grass", "stone", "water"]))
    features = segmenter.encode(random_image(70, 90))
    path = tmp_path / "deep" / "one.parquet"
    proxyclip.save_features(features, path, codec)
    found = proxyclip.load_features(str(path))
    assert isinstance(found, proxyclip.StoredFeatures)
    encoded = EncodedFeatures.of(features, codec)
    assert torch.equal(found.coefficients, encoded.decoded().coefficients)
    assert (found.plan, found.image_hw, found.dim) == (features.plan, (70, 90), features.dim)
    clip = segmenter.clip
    decoder = proxyclip.Decoder(proxyclip.DecodeConfig(), mean=clip.mean, std=clip.std)
    bound = encoded.max_error + 2e-6
    assert (decoder.logits(found, vocabulary) - segmenter.logits(features, vocabulary)).abs().max() <= bound
    equal = decoder.labels(found, vocabulary).winner == segmenter.labels(features, vocabulary).winner
    assert equal.float().mean() >= (0.9995 if codec == "exact" else 0.95)


def test_a_file_beside_the_program_needs_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    proxyclip.save_features(features_for(images(1)[0]), "one.parquet", "exact")
    assert (tmp_path / "one.parquet").is_file()
    assert_stored(proxyclip.load_features("one.parquet"), images(1)[0])


def test_the_same_features_give_the_same_file(tmp_path):
    for folder in ("a", "b"):
        proxyclip.save_features(features_for(images(1)[0]), tmp_path / folder / "one.parquet")
    assert (tmp_path / "a" / "one.parquet").read_bytes() == (tmp_path / "b" / "one.parquet").read_bytes()


def test_an_unknown_codec_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="Unknown codec 'zip'"):
        proxyclip.save_features(features_for(images(1)[0]), tmp_path / "one.parquet", "zip")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"one\.parquet"):
        proxyclip.load_features(tmp_path / "one.parquet")


def _shorter(row):
    return {**row, "bytes": row["bytes"][:-5]}


def _other_grid(row):
    return {**row, "grid_height": row["grid_height"] + 1}


def _unknown_codec(row):
    return {**row, "codec": "tiny"}


def _no_patches(row):
    return {**row, "grid_height": 0}


def _no_windows(row):
    return {**row, "windows": {**row["windows"], "y": None}}


def _rows(*changes):
    """A file of features with other rows."""

    def change(path):
        (row,) = pq.read_table(path).to_pylist()
        path.write_bytes(parquet_bytes(pa.Table.from_pylist([each(row) for each in changes], FEATURES)))

    return change


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no features, but a text that is long enough"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "another table": lambda path: pq.write_table(pa.table({"uri": ["a"]}), path),
    "no image": _rows(),
    "two images": _rows(dict, dict),
    "short bytes": _rows(_shorter),
    "another grid": _rows(_other_grid),
    "unknown codec": _rows(_unknown_codec),
    "no patches": _rows(_no_patches),
    "no windows": _rows(_no_windows),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_a_valueerror_that_names_it(name, tmp_path):
    path = tmp_path / "one.parquet"
    proxyclip.save_features(features_for(images(1)[0]), path)
    DAMAGE[name](path)
    with pytest.raises(ValueError, match=r"one\.parquet: "):
        proxyclip.load_features(path)


@pytest.mark.parametrize("seed", range(3))
def test_a_file_with_damaged_bytes_is_refused_or_has_the_shape_of_an_image(seed, tmp_path):
    path = tmp_path / "one.parquet"
    proxyclip.save_features(features_for(images(1)[0]), path)
    good = path.read_bytes()
    generator = torch.Generator().manual_seed(seed)
    refused = 0
    for _ in range(100):
        data = bytearray(good)
        at, bit = (int(torch.randint(most, (1,), generator=generator)) for most in (len(data), 8))
        data[at] ^= 1 << bit
        path.write_bytes(bytes(data))
        try:
            found = proxyclip.load_features(path)
        except ValueError:
            refused += 1
            continue
        assert found.coefficients.ndim == 3
    assert refused > 10
