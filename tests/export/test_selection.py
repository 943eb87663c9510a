"""What is exported of an output: thresholds, classes, least confidence."""

from __future__ import annotations

import json

import numpy as np
import pytest
from exports import NAMES, ODD, exported, masks, spread_confidence
from PIL import Image

from proxyclip.dataset.reading.labels import Labels
from proxyclip.export.options import ExportOptions
from proxyclip.pipeline.export.opening import open_export


def read(folder):
    return {
        path.relative_to(folder / "annotations").as_posix(): np.array(Image.open(path))
        for path in folder.rglob("*.png")
    }


def stored(output):
    names = {uri: f"{uri.rpartition('.')[0]}.png" for uri in ODD}
    return {names[uri]: mask for uri, mask in masks(output).items()}


def sure(output):
    names = {uri: f"{uri.rpartition('.')[0]}.png" for uri in ODD}
    return {names[uri]: confidence for uri, confidence in spread_confidence(output).items()}


def equal(found, wanted):
    assert found.keys() == wanted.keys()
    assert all((found[name] == wanted[name]).all() for name in wanted)


def test_a_pixel_below_the_least_confidence_becomes_ignore(output, tmp_path):
    found = read(exported(output, tmp_path / "to", "png", ignore_below=0.4))
    confidence = sure(output)
    wanted = {
        name: np.where(confidence[name] < 0.4 * 255, 255, mask).astype(np.uint8)
        for name, mask in stored(output).items()
    }
    equal(found, wanted)
    assert any((wanted[name] != mask).any() for name, mask in stored(output).items())


def test_each_class_has_its_own_threshold_and_the_higher_one_counts(output, tmp_path):
    values = dict(zip(NAMES, [0.0, 0.5, 0.9, 1.1], strict=True))
    (tmp_path / "thresholds.json").write_text(json.dumps({"thresholds": values}))
    found = read(
        exported(output, tmp_path / "to", "png", thresholds=str(tmp_path / "thresholds.json"), ignore_below=0.6)
    )
    limits = np.array([0.6, 0.6, 0.9, 1.1]) * 255
    confidence = sure(output)
    wanted = {
        name: np.where((mask < 4) & (confidence[name] < limits[np.minimum(mask, 3)]), 255, mask)
        for name, mask in stored(output).items()
    }
    equal(found, wanted)


def test_other_classes_become_ignore_and_the_chosen_ones_keep_their_index(output, tmp_path):
    (tmp_path / "some.txt").write_text(f"{NAMES[2]}\n\n{NAMES[0]}\n", encoding="utf-8")
    by_name = read(exported(output, tmp_path / "a", "png", classes=(NAMES[0], NAMES[2])))
    equal(by_name, {name: np.where(np.isin(mask, [0, 2]), mask, 255) for name, mask in stored(output).items()})
    equal(read(exported(output, tmp_path / "b", "png", classes=(str(tmp_path / "some.txt"),))), by_name)


def test_images_that_are_not_sure_enough_are_left_out(output, tmp_path):
    means = {image.uri: image.mean_confidence for image in Labels.open(output).images()}
    middle = sorted(means.values())[3]
    found = read(exported(output, tmp_path / "to", "png", min_confidence_image=middle))
    assert sorted(found) == sorted(f"{uri.rpartition('.')[0]}.png" for uri, mean in means.items() if mean >= middle)
    assert 0 < len(found) < len(means)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("sky", "hrse <x>")}, r"'hrse <x>' is no class of this output. Did you mean 'horse <x>'"),
        ({"ignore_below": 1.5}, "--ignore-below is 1.5; give a confidence from 0 to 1"),
        ({"min_area": 3}, "--min-area has no meaning for --to png"),
        ({"image_prefix": "x"}, "--image-prefix has no meaning for --to png"),
    ],
)
def test_what_cannot_be_chosen_is_refused(output, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        open_export(ExportOptions(output, str(tmp_path / "to"), "png", **changes))
    assert not (tmp_path / "to").exists()
