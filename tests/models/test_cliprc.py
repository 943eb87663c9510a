"""CLIP-RC against outputs of its public implementation, and its checkpoints."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from cliprc import SMALL, save_released, small_cliprc
from reference import SHARED, load_module
from safetensors.torch import load_file, save_file
from tiny import random_image

from proxyclip.config import TeacherModel
from proxyclip.models.cliprc.checkpoint import ClipRC, Networks, load_cliprc
from proxyclip.models.cliprc.description import Description, check, description_of
from proxyclip.models.cliprc.encoder import Tower, attention_mask
from proxyclip.models.cliprc.sizes import BACKBONE, HEAD, Sizes, sizes_of, tensor_shapes
from proxyclip.models.cliprc.teacher import Settings, Teacher
from proxyclip.recipes.teachers import TEACHERS, check_teacher_weights, teacher_files, teacher_settings
from proxyclip.vocabulary.names import Vocabulary

CASES = SHARED / "golden" / "cases"
NAMES = ["sky", "grass", "tree", "water", "stone"]
WORDS = Vocabulary.from_names(NAMES)
TINY = Sizes(width=128, embed=32, blocks=3, patch=16, grid=8, prompts=4, deep=2)

golden = pytest.mark.skipif(not CASES.is_dir(), reason="the golden cases are not here")


def golden_model(meta: dict, weights) -> ClipRC:
    """The networks of a golden case."""
    networks = Networks(TINY, Tower(), recovery=True)
    state = networks.named_state()
    encoder = {f"visual.{name.removeprefix(BACKBONE)}": v for name, v in state.items() if name.startswith(BACKBONE)}
    filled = weights.fill(encoder, meta["seeds"]["encoder"], meta["qkv_gain"]["encoder"])
    assert weights.checksum(filled) == meta["sha256"]["encoder"]
    # The sha256 of the head is over its unused tensors too, which are not made here.
    loaded = {BACKBONE + name.removeprefix("visual."): value for name, value in filled.items()}
    head = {name.removeprefix(HEAD): value for name, value in state.items() if name.startswith(HEAD)}
    for name, value in weights.fill(head, meta["seeds"]["head"], meta["qkv_gain"]["head"]).items():
        loaded[HEAD + name] = value * 0.25 if ".norm3." in name else value
    networks.load_named(loaded)
    text = torch.from_numpy(weights.unit_features(6, 32, 55))
    seen = tuple(meta["head"]["seen_idx"])
    return ClipRC(networks.eval(), text, Description(tuple("abcdef"), seen, meta["self_training"]))


@golden
@pytest.mark.parametrize("name", sorted(path.stem for path in CASES.glob("cliprc_*.json")))
def test_scores_are_those_of_the_public_implementation(name):
    meta = json.loads((CASES / f"{name}.json").read_text())
    data = np.load(CASES / f"{name}.npz", allow_pickle=False)
    model = golden_model(meta, load_module(SHARED / "golden" / "weights.py"))
    short_side = min(data["image"].shape[:2])
    teacher = Teacher(model, Settings(short_side, crop=meta["crop"][0], stride=meta["stride"][0]))
    encoded = teacher.encode(data["image"])
    words = Vocabulary.from_names(list("abcdef"))
    out = torch.stack(list(teacher.scores(encoded, words))).numpy()
    assert out.shape == (6, *meta["ori_shape"])
    assert np.isfinite(out).all()
    assert out.std() > 1e-3
    if meta["reference_error"]:
        return  # the public implementation only takes windows of one size
    for tap, found in (("cls_w0", "cls"), ("visual_w0", "patches"), ("rlb_w0", "regions")):
        np.testing.assert_allclose(getattr(encoded.tokens, found)[:1].numpy(), data[tap], atol=1e-5, rtol=0)
    np.testing.assert_allclose(out[:, ::2, ::2], data["out"], atol=1e-5, rtol=0)
    assert (teacher.decode(encoded, words).winner.numpy() == data["pred"]).mean() >= 0.999


def test_shapes_are_those_of_the_networks():
    for sizes in (SMALL, TINY, dataclasses.replace(TINY, norm_first=False)):
        state = {
            name: tuple(value.shape) for name, value in Networks(sizes, Tower(), recovery=True).named_state().items()
        }
        assert state == tensor_shapes(sizes)
        assert sizes_of(state) == sizes
        state = {name: tuple(value.shape) for name, value in Networks(sizes, Tower()).named_state().items()}
        assert state == tensor_shapes(sizes, recovery=False)


def test_a_bridge_sees_its_region_and_patches_see_their_bridge():
    mask = attention_mask((4, 6), 3, 2, torch.device("cpu"))
    first, bridges = 4, 4 + 24
    assert mask[:bridges, :bridges].all()
    assert not mask[:first, bridges:].any()
    assert not mask[bridges:, :first].any()
    assert torch.equal(mask[bridges:, bridges:], torch.eye(4, dtype=torch.bool))
    seen = mask[bridges + 1, first:bridges].unflatten(0, (4, 6))
    expected = torch.zeros(4, 6, dtype=torch.bool)
    expected[:2, 3:] = True
    assert torch.equal(seen, expected)
    assert torch.equal(mask, mask.T)


@pytest.mark.parametrize("image_hw", [(1, 1), (16, 500), (64, 64), (70, 100), (3, 4000)])
@pytest.mark.parametrize("settings", [Settings(), Settings(short_side=50, crop=40), Settings(80, 80, 30)])
def test_windows_of_any_size_give_labels_of_the_size_of_the_image(image_hw, settings):
    teacher = Teacher(small_cliprc(NAMES, [0, 1]), settings)
    found = teacher.decode(teacher.encode(random_image(*image_hw)), WORDS)
    for name, dtype in (("winner", torch.int32), ("confidence", torch.float32), ("margin", torch.float32)):
        assert (tuple(getattr(found, name).shape), getattr(found, name).dtype) == (image_hw, dtype)
    assert 0 <= found.margin.min() <= found.confidence.max() <= 1


def test_probabilities_of_overlapping_windows_are_averaged():
    teacher = Teacher(small_cliprc(NAMES, []), Settings(short_side=64, crop=64, stride=32))
    image = random_image(64, 96)
    found = torch.stack(list(teacher.scores(teacher.encode(image), WORDS)))
    left, right = (
        torch.stack(list(teacher.scores(teacher.encode(image[:, start : start + 64]), WORDS))) for start in (0, 32)
    )
    torch.testing.assert_close(found[:, :, :32], left[:, :, :32], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:, :, 32:64], (left[:, :, 32:] + right[:, :, :32]) / 2, atol=1e-5, rtol=0)


def test_seen_classes_lose_the_offset_unless_pseudo_labels_were_used():
    image, scores = random_image(64, 64), {}
    for kind, changes in (("plain", {}), ("self-trained", {"self_training": True})):
        teacher = Teacher(small_cliprc(NAMES, [1, 3], **changes), Settings(seen_offset=0.25))
        scores[kind] = torch.stack(list(teacher.scores(teacher.encode(image), WORDS)))
    expected = torch.tensor([0, 0.25, 0, 0.25, 0]).view(5, 1, 1).expand_as(scores["plain"])
    torch.testing.assert_close(scores["self-trained"] - scores["plain"], expected, atol=1e-5, rtol=0)


def test_without_unseen_classes_nobody_loses_the_offset():
    teacher = Teacher(small_cliprc(NAMES, [0, 1, 2]), Settings(seen_offset=0.9))
    encoded = teacher.encode(random_image(64, 64))
    with_unseen, without = (
        torch.stack(list(teacher.scores(encoded, Vocabulary.from_names(names)))) for names in (NAMES, NAMES[:2])
    )
    assert with_unseen[:3].min() < 0
    assert without.min() >= 0


def test_a_pixel_whose_scores_are_all_negative_has_the_best_class_and_no_confidence(monkeypatch):
    teacher = Teacher(small_cliprc(NAMES, [0]))
    maps = torch.tensor([[-0.09, 0.2], [-0.05, 0.5], [-0.07, -0.1], [-0.1, 0.5], [-0.05, 0.1]])
    monkeypatch.setattr(teacher, "scores", lambda *_: iter(maps[:, None]))
    found = teacher.decode(None, WORDS)
    assert found.winner.tolist() == [[1, 1]], "of equal classes the first wins"
    torch.testing.assert_close(found.confidence, torch.tensor([[0, 0.5]]))
    torch.testing.assert_close(found.margin, torch.tensor([[0, 0.0]]))


def test_classes_may_come_in_any_order_and_others_are_refused():
    model = small_cliprc(NAMES, [0, 1])
    teacher, image = Teacher(model), random_image(64, 64)
    there = teacher.decode(teacher.encode(image), WORDS)
    back = teacher.decode(teacher.encode(image), Vocabulary.from_names(NAMES[::-1]))
    torch.testing.assert_close(back.confidence, there.confidence, atol=1e-5, rtol=0)
    assert (4 - back.winner == there.winner)[there.margin > 1e-4].all()
    assert len(there.winner.unique()) > 1
    with pytest.raises(ValueError, match=r'no text for "cow" of vocabulary.*its classes are "sky", "grass"'):
        model.description.rows_of(Vocabulary.from_names(["sky", "cow"]))


def test_a_file_gives_the_same_networks_and_bytes(tmp_path):
    model = small_cliprc(NAMES, [0, 1], self_training=True, quick_gelu=False, eps=1e-6)
    (tmp_path / "c.safetensors").write_bytes(model.to_bytes())
    files = {"checkpoint": tmp_path / "c.safetensors"}
    again = load_cliprc(files, recovery=True)
    assert again.description == model.description
    assert again.to_bytes() == model.to_bytes()
    assert description_of(files) == model.description


def test_a_checkpoint_of_the_release_loads_without_running_code(tmp_path):
    model = small_cliprc(NAMES, [0, 1])
    folder = save_released(model, tmp_path / "released")
    files = TEACHERS["cliprc"].find_weights(str(folder))
    check({}, files, WORDS)
    again = load_cliprc(files)
    torch.testing.assert_close(again.text, model.text, atol=5e-4, rtol=0)
    for name, value in again.networks.named_state().items():
        assert torch.equal(value, model.networks.named_state()[name]), name
    (folder / "iter_40000.pth").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match="can be read safely"):
        load_cliprc(files)


def refused(state: dict, path, metadata: dict) -> str:
    save_file(state, path, metadata)
    with pytest.raises(ValueError, match=r".") as error:
        check({}, {"checkpoint": path}, WORDS)
    with pytest.raises(ValueError, match=r"."):
        load_cliprc({"checkpoint": path})
    return str(error.value)


def test_checkpoints_that_are_no_cliprc_are_refused_with_the_reason(tmp_path):
    path = tmp_path / "c.safetensors"
    path.write_bytes(small_cliprc(NAMES, [0, 1]).to_bytes())
    state, metadata = load_file(path), {"cliprc": description_of({"checkpoint": path}).to_json()}
    other = {name.replace("backbone.", "visual."): value for name, value in state.items()}
    assert "no tensor's name starts with 'backbone.'" in refused(other, path, metadata)
    lacking = {name: value for name, value in state.items() if name != "backbone.prompt_norm.bias"}
    assert "backbone.prompt_norm.bias: missing" in refused(lacking, path, metadata)
    wide = {**state, "decode_head.q_proj.weight": torch.zeros(7, 7)}
    assert "decode_head.q_proj.weight: shape (7, 7) instead of (16, 32)" in refused(wide, path, metadata)
    assert "backbone.extra: not a tensor" in refused({**state, "backbone.extra": torch.zeros(1)}, path, metadata)
    assert "does not say which classes it knows" in refused(state, path, {})
    assert "'seen' is missing" in refused(state, path, {"cliprc": '{"classes": ["sky"]}'})
    short = {"cliprc": json.dumps({"classes": NAMES[:2], "seen": [0]})}
    assert 'no text for "tree", "water", "stone"' in refused(state, path, short)
    path.write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        check({}, {"checkpoint": path}, WORDS)


def test_a_table_of_text_of_another_size_is_refused(tmp_path):
    model = small_cliprc(NAMES, [0, 1])
    files = TEACHERS["cliprc"].find_weights(str(save_released(model, tmp_path / "released")))
    for rows, told in ((model.text[:3], r"the text has shape \(3, 16\)"), (2 * model.text, "must have length 1")):
        save_file({"embeddings": rows}, files["text"])
        with pytest.raises(ValueError, match=told):
            load_cliprc(files)


def test_weights_must_be_given_and_settings_make_sense(tmp_path):
    with pytest.raises(FileNotFoundError, match="cliprc needs --method-weights"):
        teacher_files(TeacherModel("cliprc", {}))
    with pytest.raises(FileNotFoundError, match=r"neither a file nor a folder with cliprc.json"):
        teacher_files(TeacherModel("cliprc", {}, str(tmp_path)))
    with pytest.raises(ValueError, match="seen_offset is 2"):
        teacher_settings("cliprc", '{"seen_offset": 2}')
    with pytest.raises(ValueError, match="stride above the crop"):
        teacher_settings("cliprc", '{"crop": 10, "stride": 11}')


def test_a_file_is_checked_without_torch(tmp_path):
    path = tmp_path / "c.safetensors"
    path.write_bytes(small_cliprc(NAMES, [0, 1]).to_bytes())
    code = f"""
import sys
from proxyclip.config import TeacherModel
from proxyclip.recipes.teachers import check_teacher_weights
from proxyclip.vocabulary.names import Vocabulary
check_teacher_weights(TeacherModel("cliprc", {{}}, {str(path)!r}), Vocabulary.from_names({NAMES!r}))
print([name for name in ("torch", "ray") if name in sys.modules])
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    with pytest.raises(ValueError, match='"cow"'):
        check_teacher_weights(TeacherModel("cliprc", {}, str(path)), Vocabulary.from_names(["cow"]))
