"""Text embeddings of a vocabulary, and their cache."""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F
from tiny import EMBED_DIM, tiny_clip

from proxyclip.models import text
from proxyclip.models.networks.clip import ClipEncoder
from proxyclip.models.text import cached_embeddings, embed_queries
from proxyclip.vocabulary.templates import IMAGENET_TEMPLATES

QUERIES = ("cat", "traffic light", "Ωmega")


@pytest.fixture(scope="module", autouse=True)
def few_templates():
    """A few templates are enough here; `test_golden.py` tests the embeddings with all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "IMAGENET_TEMPLATES", IMAGENET_TEMPLATES[:7])
        yield


@pytest.fixture
def clip():
    return ClipEncoder(tiny_clip())


@pytest.fixture
def prompts_seen(clip, monkeypatch):
    """All prompts that reach the text tower from here on."""
    seen = []
    embed_text = clip.embed_text
    monkeypatch.setattr(clip, "embed_text", lambda prompts: (seen.extend(prompts), embed_text(prompts))[1])
    return seen


@pytest.mark.parametrize("at_once", [1, 5, 256])
def test_embeddings_are_the_mean_over_templates_made_unit(clip, at_once, monkeypatch):
    monkeypatch.setattr(text, "PROMPTS_AT_ONCE", at_once)
    embeddings = embed_queries(clip, QUERIES)
    assert embeddings.shape == (3, EMBED_DIM)
    assert embeddings.dtype == torch.float32
    for query, embedding in zip(QUERIES, embeddings, strict=True):
        features = [clip.embed_text([template.format(query)])[0] for template in IMAGENET_TEMPLATES[:7]]
        expected = F.normalize(torch.stack(features).mean(dim=0), dim=0)
        torch.testing.assert_close(embedding, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))


def test_the_second_call_reads_the_cache(clip, prompts_seen, tmp_path):
    first = cached_embeddings(clip, QUERIES, tmp_path / "text")
    assert len(prompts_seen) == 21
    assert torch.equal(cached_embeddings(ClipEncoder(clip.model), QUERIES, tmp_path / "text"), first)
    assert torch.equal(cached_embeddings(clip, QUERIES, tmp_path / "text"), first)
    assert len(prompts_seen) == 21
    assert [path.suffix for path in (tmp_path / "text").iterdir()] == [".safetensors"]


def test_the_cache_lies_where_the_user_keeps_caches(clip, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cached_embeddings(clip, QUERIES)
    assert len(list((tmp_path / "proxyclip" / "text").glob("*.safetensors"))) == 1


@pytest.mark.parametrize("damage", ["truncated", "emptied", "garbage"])
def test_a_corrupt_cache_file_is_made_again(clip, tmp_path, damage):
    first = cached_embeddings(clip, QUERIES, tmp_path)
    (path,) = tmp_path.iterdir()
    intact = path.read_bytes()
    path.write_bytes({"truncated": intact[:-5], "emptied": b"", "garbage": b"\xff" * 99}[damage])
    assert torch.equal(cached_embeddings(clip, QUERIES, tmp_path), first)
    assert path.read_bytes() == intact


def scaled(name):
    model = tiny_clip()
    with torch.no_grad():
        model.get_parameter(name).mul_(1.01)
    return model


OTHERS = {
    "weights": lambda: (scaled("text_projection"), QUERIES),
    "queries": lambda: (tiny_clip(), ("cat", "traffic light", "omega")),
    "order of queries": lambda: (tiny_clip(), QUERIES[::-1]),
    "where queries end": lambda: (tiny_clip(), ("cattraffic light", "Ωmega")),
    "activation": lambda: (tiny_clip(quick_gelu=True), QUERIES),
    "heads": lambda: (tiny_clip(text_cfg={"heads": 2}), QUERIES),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_changes_an_embedding_is_no_hit(clip, tmp_path, name):
    cached_embeddings(clip, QUERIES, tmp_path)
    model, queries = OTHERS[name]()
    other = ClipEncoder(model)
    torch.testing.assert_close(cached_embeddings(other, queries, tmp_path), embed_queries(other, queries))
    assert len(list(tmp_path.iterdir())) == 2


def test_another_image_tower_is_a_hit(clip, prompts_seen, tmp_path):
    cached_embeddings(ClipEncoder(scaled("visual.proj")), QUERIES, tmp_path)
    cached_embeddings(clip, QUERIES, tmp_path)
    assert prompts_seen == []


def test_a_folder_that_cannot_be_made_costs_only_the_cache(clip, tmp_path):
    (tmp_path / "file").touch()
    embeddings = cached_embeddings(clip, QUERIES, tmp_path / "file" / "text")
    torch.testing.assert_close(embeddings, embed_queries(clip, QUERIES))


def test_a_folder_that_cannot_be_written_costs_only_the_cache(clip, tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    cached_embeddings(clip, QUERIES, folder)
    (file,) = folder.iterdir()
    file.unlink()
    file.with_suffix(f".{os.getpid()}.partial").mkdir()  # not even root can write a file there
    folder.chmod(0o500)
    try:
        embeddings = cached_embeddings(clip, QUERIES, folder)
    finally:
        folder.chmod(0o700)
    torch.testing.assert_close(embeddings, embed_queries(clip, QUERIES))


def test_padding_behind_the_longest_prompt_is_left_out_and_changes_nothing():
    clip = ClipEncoder(tiny_clip())
    prompts = ["a photo of a cat.", "a bad photo of the large and rather unusual dishwasher in a kitchen."]
    with torch.inference_mode():
        whole = F.normalize(clip.model.encode_text(clip.tokenizer(prompts)), dim=-1)
        seen = []
        hook = clip.model.transformer.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[1]))
        found = clip.embed_text(prompts)
        hook.remove()
    assert seen[0] < 30
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-6)
