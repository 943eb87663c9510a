"""A sample is the image, mask and confidence of one live row; what does not fit together is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from outputs import NAMES, begin, forge, rows_of, with_cell
from torchvision import tv_tensors
from torchvision.transforms import v2
from trainable import LIVE, draw_image

from proxyclip import MaskDataset, MaskStream
from proxyclip.dataset.masks import confidence_to_png, mask_from_png
from proxyclip.dataset.reading.labels import Labels
from proxyclip.storage.store import Storage
from proxyclip.training.samples import SampleError
from proxyclip.vocabulary.thresholds import Thresholds


def test_samples_are_the_images_and_labels_of_the_live_rows(output):
    dataset = MaskDataset(output)
    stored = list(Labels.open(output).images())
    assert [sample["uri"] for sample in dataset] == dataset.uris.to_pylist() == [row.uri for row in stored]
    assert sorted(dataset.uris.to_pylist()) == LIVE
    for sample, row in zip(dataset, stored, strict=True):
        image, mask, confidence = sample["image"], sample["mask"], sample["confidence"]
        assert image.shape == (3, row.height, row.width)
        assert (image.dtype, mask.dtype, confidence.dtype) == (torch.uint8, torch.int64, torch.float32)
        assert image[0].unique().tolist() == [int(row.uri[:3])]
        assert image[1, 0].tolist() == list(range(row.width))
        assert np.array_equal(mask.numpy(), mask_from_png(row.mask))
        assert confidence.shape == mask.shape
    assert (dataset.ignore, dataset.class_names) == (255, tuple(NAMES))
    assert dataset[-1]["uri"] == stored[-1].uri
    with pytest.raises(IndexError):
        dataset[len(dataset)]


@pytest.fixture
def confident(output):
    """An output with one shard whose stored confidence grows from block to block: by 0.4 downwards, 0.1 to the right.

    Its masks have 9 rows. In blocks of 4, the last one has one row.
    """
    storage = Storage(output)
    rows = rows_of(storage, 1, "masks")
    for row, width in enumerate(rows["width"].to_pylist()):
        blocks = np.add.outer(np.arange(3) * 102, np.arange(-(-width // 4)) * 25.5).clip(0, 255).astype(np.uint8)
        rows = with_cell(rows, row, "confidence", {"bytes": confidence_to_png(blocks), "path": "x"})
    forge(storage, 1, "masks", rows)
    return output


def test_confidence_is_that_of_the_block_of_each_pixel(confident):
    sample = next(sample for sample in MaskDataset(confident) if sample["confidence"].any())
    assert sample["confidence"][:, 0].tolist() == pytest.approx([0.0] * 4 + [0.4] * 4 + [0.8])
    assert sample["confidence"][4].tolist() == pytest.approx([0.4] * 4 + [0.5] * 4 + [0.6], abs=0.003)


def test_pixels_below_the_threshold_of_their_class_are_ignore(confident, tmp_path):
    plain = MaskDataset(confident)
    at = next(index for index, sample in enumerate(plain) if sample["confidence"].any())
    mask, confidence = plain[at]["mask"].numpy(), plain[at]["confidence"].numpy()
    limits = [0.3, 0.0, 0.7]
    below = confidence < np.append(limits, 0)[np.minimum(mask, 3)] - 1e-6
    assert 0 < below.sum() < mask.size
    expected = np.where(below, 255, mask)
    file = tmp_path / "thresholds.json"
    file.write_text(json.dumps({"thresholds": dict(zip(NAMES, limits, strict=True))}))
    for given in (Thresholds(tuple(limits)), str(file)):
        assert np.array_equal(MaskDataset(confident, thresholds=given)[at]["mask"], expected)
    low = MaskDataset(confident, ignore_below=0.5)[at]["mask"].numpy()
    assert np.array_equal(low, np.where((confidence < 0.5) & (mask != 255), 255, mask))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"buffer": 0}, "buffer: 0 samples"),
        ({"ignore_below": 1.5}, "no probability"),
        ({"ignore_below": 0.5, "thresholds": Thresholds((0.5,) * 3)}, "not both"),
        ({"thresholds": Thresholds((0.5,) * 2)}, "2 values for the 3 classes"),
    ],
)
def test_options_that_make_no_sense_are_refused(output, wrong, message):
    with pytest.raises(ValueError, match=message):
        MaskStream(output, **wrong)


def test_a_transform_of_torchvision_turns_image_and_mask_alike(output):
    flip = v2.Compose([v2.RandomHorizontalFlip(p=1), v2.ToDtype({tv_tensors.Image: torch.float32, "others": None})])
    for plain, turned in zip(MaskDataset(output), MaskDataset(output, transform=flip), strict=True):
        assert torch.equal(turned["image"], plain["image"].flip(-1).float())
        assert torch.equal(turned["mask"], plain["mask"].flip(-1))
        assert turned["mask"].dtype == torch.int64
        assert turned["uri"] == plain["uri"]


def test_random_crops_take_the_same_place_of_image_and_mask(output):
    dataset = MaskDataset(output, transform=v2.RandomCrop((3, 4)))
    whole = {sample["uri"]: sample for sample in MaskDataset(output)}
    for _ in range(3):
        for sample in dataset:
            left = int(sample["image"][1, 0, 0])  # green is the column
            columns = whole[sample["uri"]]["mask"][:, left : left + 4]
            assert any(torch.equal(columns[top : top + 3], sample["mask"]) for top in range(7))


def test_an_image_that_is_gone_or_changed_or_broken_is_named(output):
    images = Storage(Labels.open(output).record.input)
    dataset = MaskDataset(output)
    uris = dataset.uris.to_pylist()
    images.delete(uris[1])
    with pytest.raises(SampleError, match=rf"images/{uris[1]}: no such file.*labelling command again"):
        dataset[1]
    draw_image(images, uris[2], height=7)
    with pytest.raises(SampleError, match=r"is \d+ x 7 pixels, its mask is \d+ x 9"):
        dataset[2]
    images.write(uris[3], b"text")
    with pytest.raises(SampleError, match="not a JPEG, PNG"):
        dataset[3]
    assert dataset[4]["uri"] == uris[4]


def test_images_may_lie_elsewhere_and_a_wrong_place_is_refused_at_once(output, tmp_path):
    (tmp_path / "images").rename(tmp_path / "moved")
    for kind in (MaskDataset, MaskStream):
        with pytest.raises(FileNotFoundError, match=r"give the place of the labelled images as images=\.\.\."):
            kind(output)
        assert len(list(kind(output, images=str(tmp_path / "moved")))) == len(LIVE)


def test_an_output_without_a_finished_shard_is_refused(tmp_path):
    begin(Storage(str(tmp_path)))
    for kind in (MaskDataset, MaskStream):
        with pytest.raises(ValueError, match="no labelled images yet"):
            kind(str(tmp_path))
