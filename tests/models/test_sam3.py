"""SAM 3 with random weights: shapes, prompts in chunks, memory, and the maps that transformers itself makes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from teachers import save_tiny_sam3, tiny_sam3_model, tiny_sam3_processor
from tiny import random_image
from transformers import Sam3VideoConfig

from proxyclip.models.memory import OutOfMemory
from proxyclip.models.teachers.sam3 import Sam3
from proxyclip.vocabulary.names import Vocabulary

WORDS = Vocabulary.from_names(["sky", ["grass", "lawn", "meadow"], "tree", ["water", "lake"], "stone"])
IMAGE = random_image(90, 70)


def sam3(**changes) -> Sam3:
    return Sam3(tiny_sam3_model(), tiny_sam3_processor(), **changes)


@pytest.fixture(scope="module")
def teacher():
    return sam3()


@torch.inference_mode()
def maps_of_transformers(image: np.ndarray, *, presence: bool = True) -> torch.Tensor:
    """(Q, H, W): every query asked for by itself, from pixels and text, resized as its post-processing does."""
    model, processor = tiny_sam3_model(), tiny_sam3_processor()
    maps = []
    for query in WORDS.queries:
        inputs = processor(images=image, text=query, return_tensors="pt")
        sizes = inputs.pop("original_sizes").tolist()
        found = model(**inputs)
        scores = F.interpolate(found.semantic_seg.sigmoid(), sizes[0], mode="bilinear", align_corners=False)[0, 0]
        (binary,) = processor.image_processor.post_process_semantic_segmentation(found, sizes, scores.median().item())
        assert torch.equal(binary.bool(), scores > scores.median())
        maps.append(scores * (found.presence_logits.sigmoid().item() if presence else 1))
    return torch.stack(maps)


@pytest.mark.parametrize("presence", [True, False])
def test_labels_are_those_of_the_maps_that_transformers_makes(presence):
    maps = maps_of_transformers(IMAGE, presence=presence)
    classes = torch.stack([maps[torch.from_numpy(WORDS.query_class == index)].amax(0) for index in range(5)])
    best, second = classes.topk(2, dim=0).values
    teacher = sam3(presence=presence)
    found = teacher.decode(teacher.encode(IMAGE), WORDS)
    torch.testing.assert_close(found.confidence, best, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.margin, best - second, atol=1e-5, rtol=0)
    sure = best - second > 1e-4
    assert sure.float().mean() > 0.9
    assert (found.winner == classes.argmax(0))[sure].all()
    assert len(found.winner.unique()) > 2


@pytest.mark.parametrize("at_once", [2, 3, 8, 100])
def test_labels_do_not_depend_on_how_many_prompts_go_together(teacher, at_once):
    encoded = teacher.encode(IMAGE)
    alone, together = teacher.decode(encoded, WORDS), sam3(prompts_at_once=at_once).decode(encoded, WORDS)
    torch.testing.assert_close(together.confidence, alone.confidence, atol=1e-5, rtol=0)
    assert (together.winner == alone.winner)[alone.margin > 1e-4].all()


def test_a_query_scores_the_same_in_any_vocabulary(teacher):
    encoded = teacher.encode(IMAGE)
    one = teacher.decode(encoded, Vocabulary.from_names(["tree"]))
    twice = teacher.decode(encoded, Vocabulary.from_names(["tree", ["wood", "Tree"]]))
    assert (one.winner == 0).all()
    assert torch.equal(one.margin, one.confidence)
    assert (twice.confidence >= one.confidence).all()
    equal = twice.confidence == one.confidence
    assert equal.any()
    assert (twice.winner[equal] == 0).all(), "of equal classes the first wins"


@pytest.mark.parametrize("image_hw", [(1, 1), (3, 40), (40, 3), (57, 200)])
def test_labels_have_the_size_of_the_image(teacher, image_hw):
    found = teacher.decode(teacher.encode(random_image(*image_hw)), WORDS)
    for name, dtype in (("winner", torch.int32), ("confidence", torch.float32), ("margin", torch.float32)):
        values = getattr(found, name)
        assert (tuple(values.shape), values.dtype) == (image_hw, dtype)
    assert 0 <= found.margin.min() <= found.confidence.max() <= 1


def test_the_vision_encoder_runs_once_for_all_vocabularies(teacher, monkeypatch):
    calls = []
    monkeypatch.setattr(
        teacher._model.vision_encoder,
        "forward",
        lambda *args, run=teacher._model.vision_encoder.forward, **kwargs: (calls.append(1), run(*args, **kwargs))[1],
    )
    encoded = teacher.encode(IMAGE)
    first = teacher.decode(encoded, WORDS)
    teacher.decode(encoded, Vocabulary.from_names(["road"]))
    assert torch.equal(teacher.decode(encoded, WORDS).confidence, first.confidence)
    assert len(calls) == 1


def test_fewer_prompts_go_together_when_memory_runs_out(teacher, monkeypatch):
    encoded = teacher.encode(IMAGE)
    many = sam3(prompts_at_once=8)
    ask, sizes = many._ask, []

    def limited(encoded, tokens, mask):
        sizes.append(len(tokens))
        if len(tokens) > limit:
            raise MemoryError
        return ask(encoded, tokens, mask)

    monkeypatch.setattr(many, "_ask", limited)
    limit = 2
    torch.testing.assert_close(
        many.decode(encoded, WORDS).confidence, teacher.decode(encoded, WORDS).confidence, atol=1e-5, rtol=0
    )
    assert sizes == [8, 4, 2, 2, 2, 2]
    limit = 0
    with pytest.raises(OutOfMemory, match="1 prompts at once"):
        many.decode(encoded, WORDS)


MEMORY = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
from teachers import tiny_sam3_model, tiny_sam3_processor
from tiny import random_image
from proxyclip.models.teachers.sam3 import Sam3
from proxyclip.vocabulary.names import Vocabulary

teacher = Sam3(tiny_sam3_model(), tiny_sam3_processor(), prompts_at_once=8)
encoded = teacher.encode(random_image(300, 400))
peaks = []
for count in (8, 847):
    teacher.decode(encoded, Vocabulary.from_names([f"thing {index}" for index in range(count)]))
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
print(json.dumps(peaks))
"""


def test_847_classes_need_no_more_memory_than_8():
    """All maps together would take 400 MB. In a process of its own, so that the peak is its own."""
    output = subprocess.check_output([sys.executable, "-c", MEMORY, str(Path(__file__).parents[1])], text=True)
    few, many = json.loads(output.splitlines()[-1])
    assert many - few < 60, "MB"


def test_a_folder_is_loaded_in_any_precision_and_one_that_lacks_weights_is_refused(tmp_path, teacher):
    folder = save_tiny_sam3(tmp_path / "sam3")
    wanted = teacher.decode(teacher.encode(IMAGE), WORDS)
    loaded = Sam3.from_folder(folder)
    assert torch.equal(loaded.decode(loaded.encode(IMAGE), WORDS).confidence, wanted.confidence)
    half = Sam3.from_folder(folder, dtype=torch.bfloat16)
    assert (half.decode(half.encode(IMAGE), WORDS).confidence - wanted.confidence).abs().max() < 0.1
    weights = load_file(folder / "model.safetensors")
    del weights["mask_decoder.semantic_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 tensors .* mask_decoder.semantic_projection.weight"):
        Sam3.from_folder(folder)


def test_a_file_that_also_holds_the_video_tracker_is_loaded(tmp_path, teacher):
    """The layout of a Sam3VideoModel: other names of tensors, and the detector inside its configuration."""
    folder = save_tiny_sam3(tmp_path)
    detector = load_file(folder / "model.safetensors")
    weights = {f"detector_model.{name}": value for name, value in detector.items()}
    save_file({**weights, "tracker_model.spare": torch.zeros(3)}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    Sam3VideoConfig(detector_config=config).save_pretrained(folder)
    loaded = Sam3.from_folder(folder)
    wanted = teacher.decode(teacher.encode(IMAGE), WORDS)
    assert torch.equal(loaded.decode(loaded.encode(IMAGE), WORDS).confidence, wanted.confidence)
