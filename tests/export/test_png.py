"""png: masks that Pillow reads, and a dataset that mmsegmentation would."""

from __future__ import annotations

import runpy

import numpy as np
from exports import NAMES, ODD, exported, label, masks
from PIL import Image

from proxyclip.dataset.reading.labels import Labels
from proxyclip.vocabulary.palette import default_palette


def test_every_mask_is_there_as_it_is_stored(output, tmp_path):
    folder = exported(output, tmp_path / "to", "png")
    wanted = masks(output)
    files = {path.relative_to(folder / "annotations").as_posix(): path for path in folder.rglob("*.png")}
    assert sorted(files) == sorted(f"{uri.rpartition('.')[0]}.png" for uri in ODD)
    for image in Labels.open(output).images():
        path = files[f"{image.uri.rpartition('.')[0]}.png"]
        assert path.read_bytes() == image.mask
        with Image.open(path) as found:
            assert found.mode == "P"
            assert (np.array(found) == wanted[image.uri]).all()


def test_the_config_has_the_classes_their_colours_and_the_images_of_one_suffix(output, tmp_path):
    folder = exported(output, tmp_path / "to", "png")
    config = runpy.run_path(str(folder / "dataset_config.py"))
    dataset = config["dataset"]
    assert config["classes"] == dataset["metainfo"]["classes"] == NAMES
    assert config["palette"] == default_palette(len(NAMES)).tolist()
    assert (dataset["img_suffix"], dataset["reduce_zero_label"], dataset["ignore_index"]) == (".jpg", False, 255)
    assert "4 more images" in (folder / "dataset_config.py").read_text()
    listed = (folder / "images.txt").read_text(encoding="utf-8").splitlines()
    assert sorted(f"{name}.jpg" for name in listed) == sorted(uri for uri in ODD if uri.endswith(".jpg"))
    images = Labels.open(output).record.input
    for name in listed:
        image = Image.open(f"{dataset['data_prefix']['img_path']}/{name}.jpg")
        assert image.size == Image.open(f"{dataset['data_root']}/annotations/{name}.png").size
    assert dataset["data_prefix"]["img_path"] == images


def test_more_than_255_classes_become_16_bit(tmp_path):
    names = [f"class {number}" for number in range(300)]
    output = label(tmp_path, ["a.jpg", "b.jpg"], names=names)
    folder = exported(output, tmp_path / "to", "png", classes=tuple(names[100:]))
    for uri, mask in masks(output).items():
        with Image.open(folder / "annotations" / f"{uri[0]}.png") as found:
            assert found.mode == "I;16"
            assert (np.array(found) == np.where(mask < 100, 65535, mask)).all()
    assert runpy.run_path(str(folder / "dataset_config.py"))["dataset"]["ignore_index"] == 65535


def test_two_images_that_differ_in_their_suffix_keep_it(tmp_path):
    output = label(tmp_path, ["a.jpg", "a.png", "b.jpg"])
    folder = exported(output, tmp_path / "to", "png")
    assert sorted(path.name for path in folder.rglob("*.png")) == ["a.jpg.png", "a.png.png", "b.png"]
    assert (folder / "images.txt").read_text() == "b\n"
