"""Copies of the benchmarks: found, read, and refused with the step that helps."""

from __future__ import annotations

import numpy as np
import pytest
from benchmark_copies import BORDER, CLASSES, SPLITS, make
from PIL import Image
from reference import SHARED

from proxyclip.evaluation.benchmarks.copy import open_copy
from proxyclip.evaluation.benchmarks.layouts import LAYOUTS
from proxyclip.evaluation.labels.coding import IGNORED, OUTSIDE, LabelError
from proxyclip.vocabulary.names import Vocabulary

FACTS = SHARED / "facts" / "benchmarks.md"
SHIPPED = ("cityscapes", "coco_stuff", "coco_object")
COPIES = [(name, False) for name in LAYOUTS] + [(name, True) for name in SHIPPED]


@pytest.mark.parametrize(("name", "as_shipped"), COPIES)
def test_a_copy_is_found_and_its_labels_are_the_classes(name, as_shipped, tmp_path):
    made = make(name, tmp_path, as_shipped=as_shipped)
    copy = open_copy(LAYOUTS[name], str(tmp_path))
    assert copy.uris == tuple(sorted(made.truth))
    assert copy.images == str(made.images)
    for uri, truth in made.truth.items():
        coding = copy.form.correct or copy.form.coding
        found = coding.decode(copy.labels.read(uri))
        assert (found == np.where(truth < 0, IGNORED, truth)).all()


@pytest.mark.parametrize("name", ["context459", "ade847"])
def test_the_published_rule_drops_class_255_and_keeps_void(name, tmp_path):
    made = make(name, tmp_path)
    copy = open_copy(LAYOUTS[name], str(tmp_path))
    for uri, truth in made.truth.items():
        found = copy.form.coding.decode(copy.labels.read(uri))
        assert (found == np.where(truth < 0, OUTSIDE, np.where(truth == 255, IGNORED, truth))).all()


def test_the_drawn_copies_hold_what_the_rules_are_about(tmp_path):
    assert any((truth == 255).any() for truth in make("context459", tmp_path / "a").truth.values())
    assert any((truth == BORDER).any() for truth in make("voc20", tmp_path / "b").truth.values())


def test_layouts_and_vocabularies_have_the_same_classes():
    assert LAYOUTS.keys() == CLASSES.keys()
    for name, layout in LAYOUTS.items():
        count = Vocabulary.from_name(name).num_classes
        for form in layout.forms:
            for coding in filter(None, (form.correct or form.coding,)):
                assert set(coding.classes.values()) == set(range(count)), name


@pytest.mark.skipif(not FACTS.is_file(), reason="the collected facts are not here")
def test_folders_suffixes_and_splits_are_those_of_the_collected_facts():
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in FACTS.read_text().split("## 1. ")[1].split("## 2. ")[0].splitlines()
        if line.startswith("|")
    ]
    rows = {}
    for row in table[2:]:
        for name in row[0].split(" (")[0].split(", "):
            rows[name] = row[1:]
    assert rows.keys() == LAYOUTS.keys()
    for name, layout in LAYOUTS.items():
        _, image, label, split, count = rows[name]
        city = "CITY/" if name == "cityscapes" else ""
        assert image == f"{layout.images}/{city}X{layout.image_suffix}"
        assert label == f"{layout.forms[0].folder}/{city}X{layout.forms[0].suffix}"
        assert (split == "whole folder") == (layout.split is None)
        if layout.split and split != "the same val.txt":
            assert split.split(" ")[0] == layout.split
        assert count.split(" ")[0] == str(layout.num_images)


WRONG = {
    "voc21": (21, "values without a class: 21"),
    "context59": (255, "has been shifted already"),
    "ade20k": (255, "has been shifted already"),
    "cityscapes": (33, "are labelIds"),
    "coco_stuff": (181, "belong to the map as shipped"),
    "context60": (255, "values without a class: 255"),
}


@pytest.mark.parametrize("name", WRONG)
def test_labels_of_another_encoding_are_refused(name, tmp_path):
    value, message = WRONG[name]
    make(name, tmp_path)
    copy = open_copy(LAYOUTS[name], str(tmp_path))
    path = tmp_path / copy.form.folder / copy.labels.key(copy.uris[0])
    values = np.array(Image.open(path))
    values[5, 5] = value
    Image.fromarray(values).save(path)
    with pytest.raises(LabelError, match=message):
        copy.form.coding.decode(copy.labels.read(copy.uris[0]))


STEPS = {
    "voc21": "VOCtrainval_11-May-2012.tar",
    "context60": "pascal_context.py",
    "context459": "prepare_pascal_context_459.py",
    "cityscapes": "csCreateTrainIdLabelImgs",
    "ade20k": "ADEChallengeData2016.zip",
    "ade847": "prepare_ade20k_full.py",
    "coco_stuff": "coco_stuff164k.py",
    "coco_object": "cvt_coco_object.py",
}


@pytest.mark.parametrize("name", STEPS)
def test_a_missing_label_is_named_with_the_step_that_makes_it(name, tmp_path):
    make(name, tmp_path)
    copy = open_copy(LAYOUTS[name], str(tmp_path))
    lost = f"{copy.form.folder}/{copy.labels.key(copy.uris[1])}"
    (tmp_path / lost).unlink()
    with pytest.raises(FileNotFoundError) as error:
        open_copy(LAYOUTS[name], str(tmp_path))
    assert f"missing {lost}; " in str(error.value)
    assert STEPS[name] in str(error.value)
    assert LAYOUTS[name].root in str(error.value)


@pytest.mark.parametrize("name", SPLITS)
def test_a_missing_split_or_image_is_named(name, tmp_path):
    made = make(name, tmp_path)
    with (tmp_path / SPLITS[name]).open("a") as file:
        file.writelines(f"lost_{number}\n" for number in range(5))
    with pytest.raises(FileNotFoundError, match=r"missing \S+/lost_0\.jpg, .*lost_2\.jpg and 2 more; "):
        open_copy(LAYOUTS[name], str(tmp_path))
    (tmp_path / SPLITS[name]).write_text(" \n")
    with pytest.raises(ValueError, match="the file is empty"):
        open_copy(LAYOUTS[name], str(tmp_path))
    (tmp_path / SPLITS[name]).unlink()
    with pytest.raises(FileNotFoundError, match=f"missing {SPLITS[name]}; "):
        open_copy(LAYOUTS[name], str(tmp_path))
    assert made.truth


def test_a_wrong_root_says_which_folder_is_meant(tmp_path):
    with pytest.raises(FileNotFoundError, match="--data is the folder that is usually called cityscapes"):
        open_copy(LAYOUTS["cityscapes"], str(tmp_path))
