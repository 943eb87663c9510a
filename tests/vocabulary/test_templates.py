"""The 80 templates are data: their number, their form, and their agreement with the published list."""

from __future__ import annotations

import importlib.util
import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from proxyclip.vocabulary.templates import IMAGENET_TEMPLATES

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "cases" / "text_tiny_clip.json"


def test_there_are_80_different_templates() -> None:
    assert len(set(IMAGENET_TEMPLATES)) == len(IMAGENET_TEMPLATES) == 80


@pytest.mark.parametrize("template", IMAGENET_TEMPLATES)
def test_a_template_holds_its_query_once_and_as_written(template: str) -> None:
    assert template.format("{a_Tvmonitor}") == template.replace("{}", "{a_Tvmonitor}")
    assert template.count("{}") == 1


def test_the_list_is_the_published_one_in_its_order() -> None:
    spec = importlib.util.find_spec("open_clip")
    assert spec is not None
    assert spec.submodule_search_locations
    # The file alone: importing open_clip would import torch.
    published = runpy.run_path(str(Path(spec.submodule_search_locations[0]) / "zero_shot_metadata.py"))
    assert tuple(fill("{}") for fill in published["OPENAI_IMAGENET_TEMPLATES"]) == IMAGENET_TEMPLATES


def test_the_first_prompts_have_the_golden_tokens() -> None:
    if not GOLDEN.exists():
        pytest.skip(f"no golden files at {GOLDEN.parent}")
    open_clip = pytest.importorskip("open_clip")
    words = json.loads(GOLDEN.read_text())["words"]
    prompts = [IMAGENET_TEMPLATES[0].format(word) for word in words]
    golden = np.load(GOLDEN.with_suffix(".npz"))["tokens_template0"]
    assert np.array_equal(open_clip.tokenize(prompts).numpy(), golden)
