"""A tokenizer that is a download lies in the bundle too, and is the same from there."""

from __future__ import annotations

import uuid

import pytest
from hub_server import hub_server
from huggingface_hub import constants

from proxyclip.config import ModelConfig
from proxyclip.models.networks.build import lazy_tokenizer
from proxyclip.recipes.bundle.fetch import fetch_bundle
from proxyclip.recipes.bundle.manifest import read_manifest
from proxyclip.recipes.bundle.tokenizer import tokenizer_folder, tokenizer_repository
from proxyclip.storage.store import Storage

CLIP = "ViT-B-16-SigLIP"
PROMPTS = ["a cat", "a dog and a cat"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A small tokenizer under the true name of SigLIP's."""
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = {word: index for index, word in enumerate(["<pad>", "<unk>", "</s>", "a", "cat", "dog", "and"])}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=model, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )
    fast.save_pretrained(tmp_path / "hub" / str(tokenizer_repository(CLIP)))
    (tmp_path / "hub" / str(tokenizer_repository(CLIP)) / "model.safetensors").write_bytes(b"not needed")
    with hub_server(tmp_path / "hub", tmp_path / "hf") as running:
        yield running


@pytest.fixture(params=["disk", "store"])
def bundle(request, hub, tmp_path):
    weights = tmp_path / "siglip.safetensors"
    weights.write_bytes(b"weights")
    uri = str(tmp_path / "bundle") if request.param == "disk" else f"memory://{uuid.uuid4().hex}/bundle"
    fetch_bundle(ModelConfig(clip=CLIP, clip_pretrained="webli", clip_weights=str(weights), proxy=None), uri)
    return uri


def test_it_lies_in_the_bundle_without_the_networks_beside_it(bundle):
    names = {file.file.rpartition("/")[2] for file in read_manifest(bundle) if file.part == "tokenizer"}
    assert {"tokenizer.json", "tokenizer_config.json", "open_clip_config.json"} <= names
    assert "model.safetensors" not in names


def test_it_makes_the_tokens_that_the_one_by_name_makes(bundle, hub, monkeypatch):
    by_name = lazy_tokenizer(CLIP)(PROMPTS)
    asked = len(hub.seen)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nowhere")
    from_bundle = lazy_tokenizer(CLIP, bundle)(PROMPTS)
    assert (from_bundle == by_name).all()
    assert len({tuple(row) for row in by_name.tolist()}) == 2
    assert len(hub.seen) == asked
    assert tokenizer_folder(bundle, CLIP) == tokenizer_folder(bundle, CLIP)


def test_a_clip_whose_tokenizer_is_no_download_has_none(bundle):
    assert tokenizer_repository("ViT-B-16-quickgelu") is None
    assert tokenizer_folder(bundle, "ViT-B-16-quickgelu") is None
    assert Storage(bundle).exists("weights.json")
