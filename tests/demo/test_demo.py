"""The drawn scenes, the bundled weights, and what the two together are good for."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from proxyclip.demo import CLIP_FOLDER, DEMO_FOLDER, PROXY_FOLDER, VOCABULARY_FILE, scenes
from proxyclip.evaluation.confusion import ConfusionMatrix
from proxyclip.models.segmenter import Segmenter
from proxyclip.vocabulary.names import Vocabulary


def test_a_seed_always_draws_the_same_scene() -> None:
    first, again, other = (scenes.draw_scene(seed, (96, 128)) for seed in (7, 7, 8))
    assert (first.image == again.image).all()
    assert (first.mask == again.mask).all()
    assert first.caption == again.caption
    assert (first.image != other.image).any()


@pytest.mark.parametrize("size_hw", [(96, 128), (128, 96), (90, 240)])
def test_every_pixel_has_a_class_and_the_caption_names_it(size_hw: tuple[int, int]) -> None:
    for seed in range(6):
        scene = scenes.draw_scene(seed, size_hw)
        assert scene.image.shape == (*size_hw, 3)
        assert scene.image.dtype == scene.mask.dtype == np.uint8
        assert scene.mask.shape == size_hw
        for index in np.unique(scene.mask):
            assert scenes.CLASSES[index] in scene.caption


def test_a_scene_is_the_same_at_twice_the_size() -> None:
    small, large = scenes.draw_scene(3, (120, 160)), scenes.draw_scene(3, (240, 320))
    assert (small.mask == large.mask[::2, ::2]).mean() > 0.97


def test_the_mask_lies_on_what_is_drawn() -> None:
    """A tomato is red, a lemon yellow, where the mask says so."""
    colours: dict[str, list[np.ndarray]] = {"tomato": [], "lemon": []}
    for seed in range(40):
        scene = scenes.draw_scene(seed, (96, 128))
        for name, seen in colours.items():
            seen.append(scene.image[scene.mask == scenes.CLASSES.index(name)])
    tomato, lemon = (np.concatenate(seen).mean(0) for seen in colours.values())
    assert tomato[0] > 2 * max(tomato[1], tomato[2])
    assert min(lemon[0], lemon[1]) > 2 * lemon[2]


def test_samples_are_written_in_several_shapes(tmp_path: Path) -> None:
    paths = scenes.write_samples(tmp_path / "new", count=4)
    sizes = {Image.open(path).size for path in paths}
    assert len(paths) == 4
    assert any(width < height for width, height in sizes)
    assert any(width > height for width, height in sizes)


def test_labels_of_samples_are_their_masks(tmp_path: Path) -> None:
    (path,) = scenes.write_samples(tmp_path / "images", 1, seed=2, labels=tmp_path / "labels")
    with Image.open(tmp_path / "labels" / f"{path.stem}.png") as label, Image.open(path) as image:
        assert label.size == image.size
        mask = np.asarray(label)
    assert (mask == scenes.draw_scene(scenes.SAMPLE_SEEDS.start + 2000, mask.shape).mask).all()


def test_the_command_draws_samples_without_loading_torch(tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.argv = ['scenes', sys.argv[1], '--count', '1']\n"
        "runpy.run_module('proxyclip.demo.scenes', run_name='__main__'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert len(list(tmp_path.glob("*.jpg"))) == 1


def test_the_seeds_of_training_samples_and_figures_are_apart() -> None:
    ranges = (scenes.TRAIN_SEEDS, scenes.HELD_OUT_SEEDS, scenes.SAMPLE_SEEDS)
    assert all(a.stop <= b.start for a, b in itertools.pairwise(ranges))


def test_the_vocabulary_is_the_classes_in_the_order_of_the_masks() -> None:
    classes = json.loads(VOCABULARY_FILE.read_text())["classes"]
    assert tuple(entry["name"] for entry in classes) == scenes.CLASSES
    for entry in classes:
        assert tuple(entry["queries"]) == (entry["name"], *scenes.SYNONYMS.get(entry["name"], ()))


def test_what_is_bundled_stays_under_10_megabytes() -> None:
    files = [path for path in DEMO_FOLDER.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert sum(path.stat().st_size for path in files) < 10e6


def test_open_clip_itself_loads_the_bundled_clip() -> None:
    import open_clip

    model = open_clip.create_model(f"local-dir:{CLIP_FOLDER}")
    tokens = open_clip.get_tokenizer(f"local-dir:{CLIP_FOLDER}")(["a photo of a lemon."])
    assert model.encode_text(tokens).shape == (1, 64)
    assert (PROXY_FOLDER / "model.safetensors").is_file()


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.from_preset("demo")


def test_held_out_scenes_are_segmented(segmenter: Segmenter) -> None:
    vocabulary = Vocabulary.from_file(VOCABULARY_FILE)
    confusion = ConfusionMatrix(len(scenes.CLASSES))
    for seed in scenes.HELD_OUT_SEEDS[:12]:
        scene = scenes.draw_scene(seed)
        confusion.add(scene.mask, segmenter.predict(scene.image, vocabulary).mask)
    assert confusion.mean_iou >= 60


def test_unknown_words_take_little_from_known_ones(segmenter: Segmenter) -> None:
    scene = scenes.draw_scene(scenes.HELD_OUT_SEEDS[0])
    unknown = ["zeppelin", "traffic light", "Ωmega", "kitchen sink full of dishes"]
    result = segmenter.predict(scene.image, Vocabulary.from_names([*scenes.CLASSES, *unknown]))
    assert (result.mask < len(scenes.CLASSES)).mean() > 0.9
    assert np.isfinite(result.confidence).all()
