"""Weights from local files: whole and safe, or an error that says what is wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil

import open_clip
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from segment_anything.modeling import ImageEncoderViT
from tiny import CLIP_CONFIG, save_local_models, tiny_clip, tiny_vit

from proxyclip.config import ModelConfig
from proxyclip.models.networks.build import check_proxy
from proxyclip.models.networks.weights import load_clip, load_proxy
from proxyclip.recipes.architectures import check_proxy_scale, is_listed_proxy
from proxyclip.recipes.proxies import VFMS, VfmSpec


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return save_local_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def config(folders):
    return ModelConfig(clip=f"local-dir:{folders[0]}", proxy=f"local-dir:{folders[1]}")


@pytest.fixture(scope="module")
def clip_weights(folders):
    return folders[0] / "open_clip_model.safetensors"


def same(model, other):
    state, wanted = model.state_dict(), other.state_dict()
    return state.keys() == wanted.keys() and all(torch.equal(state[name], wanted[name]) for name in wanted)


def as_folder(tmp_path, folders, save, suffix="pth"):
    """The proxy's folder with weights written by `save(state, path)` in place of its own."""
    folder = tmp_path / "proxy"
    folder.mkdir()
    shutil.copy(folders[1] / "config.json", folder)
    save(load_file(folders[1] / "model.safetensors"), folder / f"weights.{suffix}")
    return ModelConfig(proxy=f"local-dir:{folder}")


def test_local_folders_round_trip(config):
    assert same(load_clip(config).model, tiny_clip())
    proxy = load_proxy(config, 112)
    assert same(proxy.model, tiny_vit())
    assert proxy.rule == "offset"


def test_the_folder_names_the_normalisation(tmp_path, folders):
    folder = tmp_path / "clip"
    shutil.copytree(folders[0], folder)
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP_CONFIG, "preprocess_cfg": preprocess}))
    clip = load_clip(ModelConfig(clip=f"local-dir:{folder}"))
    assert (clip.mean, clip.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))


def test_without_a_proxy_nothing_is_loaded(config):
    assert load_proxy(dataclasses.replace(config, proxy=None), 112) is None


def test_weights_may_lie_outside_the_folder_of_the_architecture(tmp_path, config, clip_weights):
    shutil.copy(clip_weights, tmp_path / "elsewhere.safetensors")
    elsewhere = dataclasses.replace(config, clip_weights=str(tmp_path / "elsewhere.safetensors"))
    assert same(load_clip(elsewhere).model, tiny_clip())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            lambda: tiny_vit(embed_dim=36),
            r"cls_token: shape \(1, 1, 36\) in the file, \(1, 1, 48\) in the model; .* \(and \d+ more\)",
        ),
        (lambda: tiny_vit(depth=2), r"blocks.2.norm1.weight: missing; .* \(and \d+ more\)"),
        (tiny_clip, r"cls_token: missing; pos_embed: missing; .* \(and \d+ more\)"),
    ],
)
def test_weights_of_another_model_are_refused_by_the_first_tensors_that_differ(tmp_path, folders, other, message):
    config = as_folder(tmp_path, folders, lambda state, path: save_file(other().state_dict(), path), "safetensors")
    with pytest.raises(ValueError, match=rf"weights of proxy local-dir:.*: {message}"):
        load_proxy(config, 112)


def test_tensors_that_the_model_lacks_are_refused(tmp_path, folders):
    config = as_folder(tmp_path, folders, lambda state, path: torch.save({**state, "extra": torch.ones(1)}, path))
    with pytest.raises(ValueError, match="extra: not in the model"):
        load_proxy(config, 112)


def test_a_missing_tensor_is_named(tmp_path, folders):
    config = as_folder(tmp_path, folders, lambda state, path: torch.save(state, path))
    state = torch.load(tmp_path / "proxy" / "weights.pth")
    del state["norm.bias"]
    torch.save(state, tmp_path / "proxy" / "weights.pth")
    with pytest.raises(ValueError, match=r"norm.bias: missing"):
        load_proxy(config, 112)


@pytest.mark.parametrize("key", [None, "state_dict", "model", "teacher"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_plain_and_wrapped_state_dicts_load(tmp_path, folders, key, prefix):
    def save(state, path):
        state = {prefix + name: value for name, value in state.items()}
        torch.save(state if key is None else {key: state, "epoch": 3}, path)

    assert same(load_proxy(as_folder(tmp_path, folders, save), 112).model, tiny_vit())


def test_the_classifier_of_a_proxy_is_left_over(tmp_path, folders):
    def save(state, path):
        torch.save({**state, "head.weight": torch.ones(10, 48), "head.bias": torch.ones(10)}, path)

    assert same(load_proxy(as_folder(tmp_path, folders, save), 112).model, tiny_vit())


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_archive_loads(tmp_path, config):
    """OpenAI's own files are such archives, in half precision and with three constants beside the weights."""
    model = tiny_clip()

    class Archive(torch.nn.Module):
        def forward(self, x):
            return x

    archive = Archive()
    for name, value in model.state_dict().items():
        *parents, leaf = name.split(".")
        module = archive
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, Archive())
            module = getattr(module, parent)
        module.register_buffer(leaf, value.half() if value.is_floating_point() else value)
    for name in ("input_resolution", "context_length", "vocab_size"):
        archive.register_buffer(name, torch.tensor(77))
    torch.jit.script(archive).save(str(tmp_path / "clip.pt"))
    shutil.copy(f"{config.clip.removeprefix('local-dir:')}/open_clip_config.json", tmp_path)

    loaded = load_clip(ModelConfig(clip=f"local-dir:{tmp_path}")).model
    assert loaded.visual.proj.dtype == torch.float32
    assert same(loaded, model.half().float())


class RunsCode:
    """Unpickling it would call what it names."""

    ran = False

    def __reduce__(self):
        return (setattr, (RunsCode, "ran", True))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_that_run_code_are_refused(tmp_path, folders, legacy):
    def save(state, path):
        torch.save({"state_dict": state, "args": RunsCode()}, path, _use_new_zipfile_serialization=not legacy)

    config = as_folder(tmp_path, folders, save)
    with pytest.raises(ValueError, match=r"weights.pth is not a checkpoint"):
        load_proxy(config, 112)
    assert not RunsCode.ran


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\n"], ids=["empty", "lfs pointer"]
)
def test_files_that_hold_no_weights_are_refused(tmp_path, folders, suffix, content):
    config = as_folder(tmp_path, folders, lambda state, path: path.write_bytes(content), suffix)
    with pytest.raises(ValueError, match=f"weights.{suffix}"):
        load_proxy(config, 112)


@pytest.mark.parametrize("content", [[torch.ones(2)], {"epoch": 3, "weights": {}}], ids=["list", "no tensors"])
def test_pickles_that_hold_no_state_dict_are_refused(tmp_path, folders, content):
    config = as_folder(tmp_path, folders, lambda state, path: torch.save(content, path))
    with pytest.raises(ValueError, match=r"weights\.pth"):
        load_proxy(config, 112)


def test_unknown_names_are_refused_with_local_weights_too(clip_weights):
    with pytest.raises(ValueError, match="ViT-Q-7"):
        load_clip(ModelConfig(clip="ViT-Q-7", clip_weights=str(clip_weights)))
    with pytest.raises(ValueError, match="dino-q7"):
        load_proxy(ModelConfig(proxy="dino-q7", proxy_weights=str(clip_weights)), 112)


def test_a_folder_without_its_architecture_is_refused(tmp_path, clip_weights):
    shutil.copy(clip_weights, tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match=r"open_clip_config\.json"):
        load_clip(ModelConfig(clip=f"local-dir:{tmp_path}"))
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_proxy(ModelConfig(proxy=f"local-dir:{tmp_path}"), 112)


def test_open_clip_itself_loads_the_folder(config):
    assert same(open_clip.create_model(config.clip), tiny_clip())


def test_named_proxies_load_from_a_local_file_by_their_rules(tmp_path, monkeypatch, caplog):
    """MAE: positions by size, windows made square, a warning about its licence."""
    spec = VfmSpec("vit_tiny_patch16_224", "CC-BY-NC-4.0", "size", square=True)
    monkeypatch.setitem(VFMS, "mae-b16", spec)
    model = timm.create_model(spec.model, pretrained=False, num_classes=0)
    save_file(model.state_dict(), tmp_path / "mae.safetensors")
    config = ModelConfig(proxy="mae-b16", proxy_weights=str(tmp_path / "mae.safetensors"))
    proxy = load_proxy(config, 112)
    assert (proxy.rule, proxy.side_px) == ("size", 112)
    assert load_proxy(config, 0).side_px is None
    assert "not for commercial use" in caplog.text


def test_sam_loads_from_its_checkpoint_and_is_not_downloaded(tmp_path, monkeypatch):
    def tiny_encoder(name):
        assert name == "vit_b"
        return ImageEncoderViT(img_size=64, embed_dim=24, depth=1, num_heads=2, out_chans=8)

    monkeypatch.setattr("proxyclip.models.networks.build.build_sam_encoder", tiny_encoder)
    encoder = tiny_encoder("vit_b")
    state = {f"image_encoder.{name}": value for name, value in encoder.state_dict().items()}
    torch.save(state | {"mask_decoder.weight": torch.zeros(2)}, tmp_path / "sam.pth")
    proxy = load_proxy(ModelConfig(proxy="sam-b", proxy_weights=str(tmp_path / "sam.pth")), 112)
    assert same(proxy.encoder, encoder)
    with pytest.raises(ValueError, match="--proxy-weights"):
        load_proxy(ModelConfig(proxy="sam-b"), 112)


@pytest.mark.parametrize("crop", [336, 0])
@pytest.mark.parametrize("name", VFMS)
def test_the_networks_are_fixed_in_size_as_their_names_say(name, crop):
    config = ModelConfig(proxy=name, proxy_scale=0.5)
    said, is_so = refusal(check_proxy_scale, config, crop), refusal(check_proxy, config, crop)
    assert said == is_so
    assert bool(said) == (VFMS[name].fixed_size or (VFMS[name].square and crop > 0))


def refusal(check, config, crop):
    try:
        check(config, crop)
    except ValueError as error:
        return str(error)
    return ""


def test_another_proxy_with_a_fixed_size_is_refused_by_its_network():
    config = ModelConfig(proxy="hiera_tiny_224.mae", proxy_scale=0.5)
    assert not is_listed_proxy("hiera_tiny_224.mae")
    with pytest.raises(ValueError, match="--quality exact"):
        check_proxy(config, 336)
    check_proxy(dataclasses.replace(config, proxy_scale=1.0), 336)
