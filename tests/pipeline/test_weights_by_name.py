"""Networks by their true names, from a hub on loopback and from a bundle: the whole way from a command to labels."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import uuid
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from hub_server import hub_server
from labelling import command, draw, embedded, labels, small_options
from safetensors.torch import save_file
from tiny import randomise

CLIP = "timm/vit_base_patch16_clip_224.openai/open_clip_model.safetensors"
DINO_S16 = "timm/vit_small_patch16_224.dino/model.safetensors"
DINO_B8 = "timm/vit_base_patch8_224.dino/model.safetensors"


def publish(path: Path, network: torch.nn.Module, seed: int) -> None:
    """Put a network with seeded weights onto the hub."""
    randomise(network, seed)
    path.parent.mkdir(parents=True)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with hub_server(tmp_path / "hub", tmp_path / "hf") as running:
        yield running


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_a_proxy_by_name_and_from_a_bundle_without_a_hub(hub, s3, tmp_path, monkeypatch):
    """A real network under its own name: 22 million parameters, 87 MB."""
    publish(hub.folder / DINO_S16, timm.create_model("vit_small_patch16_224.dino", num_classes=0), 1)
    draw(tmp_path / "images", 2)
    by_name = embedded(small_options(tmp_path / "images", proxy="dino-s16"))
    run(command(by_name))
    assert hub.downloads() == [DINO_S16]

    bundle = s3.uri(f"bucket/{uuid.uuid4().hex}")
    words = [sys.executable, "-m", "proxyclip", "fetch-weights", "demo", bundle, "--proxy", "dino-s16"]
    assert "Apache-2.0" in run(words).stdout
    assert hub.downloads() == [DINO_S16]

    hub.shutdown()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    from_bundle = dataclasses.replace(by_name, weights=bundle, output=str(tmp_path / "from bundle"))
    run(command(from_bundle))
    assert [path.suffix for path in (tmp_path / "cache/proxyclip/weights").glob("*.safetensors")] == [".safetensors"]
    first, second = labels(by_name.output), labels(from_bundle.output)
    assert len(first) == 2
    assert all((first[uri] == second[uri]).all() for uri in first)


@pytest.mark.slow
def test_the_default_preset_by_name(hub, tmp_path):
    """Both networks at full size, 940 MB, with the text tower."""
    clip = open_clip.create_model("ViT-B-16-quickgelu", load_weights=False)
    publish(hub.folder / CLIP, clip, 0)
    publish(hub.folder / DINO_B8, timm.create_model("vit_base_patch8_224.dino", num_classes=0), 1)
    draw(tmp_path / "images", 2)
    options = small_options(tmp_path / "images", preset="proxyclip-b16-dino-b8")
    run(command(options))
    assert sorted(hub.downloads()) == sorted([CLIP, DINO_B8])
    assert len(labels(options.output)) == 2
