"""Weight files: found, hashed and compared with those of the run."""

from __future__ import annotations

import dataclasses
import json
import shutil
import socket

import open_clip
import pytest
import timm

from proxyclip.config import ModelConfig
from proxyclip.recipes.hub import HubFile
from proxyclip.recipes.presets import PRESETS
from proxyclip.recipes.proxies import VFMS
from proxyclip.recipes.weights import CLIP_REPOSITORIES, WeightsDiffer, check_hashes, weight_files, weight_hashes


@pytest.fixture
def config(tmp_path):
    """Two `local-dir:` folders; the files in them need not be networks."""
    for part, architecture in (("clip", {"model_cfg": {"embed_dim": 32}}), ("proxy", {"positions": "offset"})):
        folder = tmp_path / part
        folder.mkdir()
        name = "open_clip_config.json" if part == "clip" else "config.json"
        (folder / name).write_text(json.dumps(architecture))
        (folder / "model.safetensors").write_bytes(part.encode() * 1000)
    return ModelConfig(clip=f"local-dir:{tmp_path / 'clip'}", proxy=f"local-dir:{tmp_path / 'proxy'}")


@pytest.fixture
def downloads(monkeypatch, tmp_path):
    """What would be downloaded; nothing is in the cache."""
    asked = []

    def download(file):
        asked.append(file)
        return tmp_path / file.repository / file.names[0]

    monkeypatch.setattr(HubFile, "cached", lambda file: None)
    monkeypatch.setattr(HubFile, "download", download)
    return asked


def test_the_parts_asked_for_are_found(tmp_path, config):
    clip, proxy = tmp_path / "clip" / "model.safetensors", tmp_path / "proxy" / "model.safetensors"
    assert weight_files(config) == {"clip": clip, "proxy": proxy}
    assert weight_files(config, ["proxy"]) == {"proxy": proxy}
    assert weight_files(dataclasses.replace(config, proxy=None)) == {"clip": clip}


def test_hashes_know_weights_and_architecture_but_not_paths(tmp_path, config):
    original = weight_hashes(config)
    assert original.keys() == {"clip", "proxy"}
    for part in ("clip", "proxy"):
        shutil.copytree(tmp_path / part, tmp_path / "moved" / part)
    moved = ModelConfig(clip=f"local-dir:{tmp_path / 'moved/clip'}", proxy=f"local-dir:{tmp_path / 'moved/proxy'}")
    assert weight_hashes(moved) == original

    shutil.copy(tmp_path / "clip" / "model.safetensors", tmp_path / "elsewhere.safetensors")
    elsewhere = dataclasses.replace(moved, clip_weights=str(tmp_path / "elsewhere.safetensors"))
    assert weight_hashes(elsewhere) == original

    with (tmp_path / "moved/proxy/model.safetensors").open("ab") as file:
        file.write(b".")
    assert weight_hashes(moved)["proxy"] != original["proxy"]
    assert weight_hashes(moved)["clip"] == original["clip"]

    (tmp_path / "moved/clip/open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 48}}))
    assert weight_hashes(moved)["clip"] != original["clip"]


def test_the_demos_hashes_stay(config):
    """They stand in the run records of outputs that exist."""
    hashes = weight_hashes(PRESETS["demo"].config.model)
    assert {part: value[:12] for part, value in hashes.items()} == {"clip": "514003e70a64", "proxy": "89fa18f9d02d"}


def test_a_file_like_the_runs_passes(config):
    check_hashes(config, weight_hashes(config))


@pytest.mark.parametrize("part", ["clip", "proxy"])
def test_a_changed_file_is_refused_with_machine_file_and_both_hashes(tmp_path, config, part):
    expected = weight_hashes(config)
    (tmp_path / part / "model.safetensors").write_bytes(b"other")
    with pytest.raises(WeightsDiffer) as error:
        check_hashes(config, expected)
    facts = (
        socket.gethostname(),
        str(tmp_path / part / "model.safetensors"),
        expected[part],
        weight_hashes(config)[part],
    )
    assert all(fact in str(error.value) for fact in facts)


@pytest.mark.parametrize("part", ["clip", "proxy"])
def test_a_missing_file_is_refused_with_its_machine(tmp_path, config, part):
    expected = weight_hashes(config)
    (tmp_path / part / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError) as error:
        check_hashes(config, expected)
    assert socket.gethostname() in str(error.value)
    assert str(tmp_path / part) in str(error.value)


def test_only_the_parts_asked_for_are_checked(tmp_path, config):
    expected = weight_hashes(config)
    (tmp_path / "proxy" / "model.safetensors").unlink()
    check_hashes(config, {"clip": expected["clip"]})
    with pytest.raises(WeightsDiffer, match="CLIP"):
        check_hashes(config, {"clip": expected["proxy"]})


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("CLIP", {"clip_weights": "absent.safetensors"}),
        ("proxy", {"proxy_weights": "absent.safetensors"}),
        ("CLIP", {"clip": "local-dir:absent"}),
        ("proxy", {"proxy": "local-dir:absent"}),
    ],
)
def test_missing_files_are_named_with_their_part(config, part, values):
    with pytest.raises(FileNotFoundError, match=f"{part}.*absent"):
        weight_files(dataclasses.replace(config, **values))


def test_a_folder_with_two_files_of_weights_is_refused(tmp_path):
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"2 \*.pt files"):
        weight_files(ModelConfig(clip=f"local-dir:{tmp_path}"))


def test_the_presets_clips_are_where_open_clip_has_them():
    named = {(p.config.model.clip, p.config.model.clip_pretrained) for p in PRESETS.values()}
    assert CLIP_REPOSITORIES.keys() == {key for key in named if not key[0].startswith("local-dir:")}
    for key, repository in CLIP_REPOSITORIES.items():
        assert open_clip.get_pretrained_cfg(*key)["hf_hub"] == f"{repository}/"


@pytest.mark.parametrize("name", [name for name, spec in VFMS.items() if "segment-anything" not in spec.model])
def test_proxies_by_name_are_where_timm_has_them(name, downloads):
    weight_files(ModelConfig(proxy=name), ["proxy"])
    assert downloads == [HubFile(timm.get_pretrained_cfg(VFMS[name].model).hf_hub_id, ("model.safetensors",))]


@pytest.mark.parametrize(
    ("values", "file"),
    [
        (
            {"clip": "ViT-B-32", "clip_pretrained": "laion2b_s34b_b79k"},
            HubFile(
                "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
            ),
        ),
        (
            {"clip": "ViTamin-S", "clip_pretrained": "datacomp1b"},
            HubFile("jienengchen/ViTamin-S", ("pytorch_model.safetensors", "pytorch_model.bin")),
        ),
        (
            {"clip_weights": __file__, "proxy": "vit_tiny_patch16_224"},
            HubFile("timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", ("model.safetensors",)),
        ),
    ],
)
def test_names_outside_the_tables_are_asked_of_open_clip_and_timm(values, file, downloads):
    weight_files(ModelConfig(**{"proxy": None, **values}))
    assert downloads == [file]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clip": "ViT-Q-7"}, "Unknown CLIP 'ViT-Q-7'"),
        ({"clip_pretrained": "mine"}, "no weights 'mine' for ViT-B-16-quickgelu; it has: openai"),
        ({"proxy": "dino-q7"}, "Unknown proxy 'dino-q7'"),
        ({"proxy": "dino-q7", "proxy_weights": __file__}, "Unknown proxy 'dino-q7'"),
        ({"proxy": "sam-b"}, "--proxy-weights FILE"),
        (
            {"proxy": "vit_tiny_patch16_224.mine"},
            "timm has no weights vit_tiny_patch16_224.mine; it has: .*augreg_in21k",
        ),
        ({"proxy_weights": "absent.safetensors"}, r"absent\.safetensors"),
        ({"proxy": "local-dir:absent"}, "absent"),
    ],
)
def test_nothing_is_downloaded_for_a_configuration_that_is_refused(values, message, downloads):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        weight_files(ModelConfig(**values))
    assert downloads == []
