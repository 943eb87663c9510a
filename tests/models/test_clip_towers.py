"""Image towers of every kind at several window sizes: open_clip's own, and timm's (SigLIP, EVA, PE-Core)."""

from __future__ import annotations

import functools

import numpy as np
import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tiny import randomise, tiny_vit

from proxyclip.config import ModelConfig, SegmenterConfig, WindowConfig
from proxyclip.models.attention import ATTENTION, own_attention
from proxyclip.models.networks.build import lazy_tokenizer
from proxyclip.models.networks.clip import ClipEncoder
from proxyclip.models.networks.clip_timm import TimmClipEncoder, as_clip
from proxyclip.models.networks.proxy import TimmProxy
from proxyclip.models.networks.weights import load_clip
from proxyclip.models.segmenter import Segmenter
from proxyclip.recipes.methods import METHODS

NATIVE = ["ViT-L-14-quickgelu", "ViT-H-14", "ViT-B-32", "ViT-L-14-CLIPA", "ViT-H-14-worldwide-quickgelu"]
TIMM = ["ViT-B-16-SigLIP", "ViT-B-16-SigLIP2", "EVA02-B-16", "EVA01-g-14", "PE-Core-B-16", "MobileCLIP2-L-14"]
SIZES = [(112, 112), (112, 224), (150, 90)]


def _shallow(config):
    """The architecture with two image blocks, and one narrow text block."""
    config["text_cfg"] = {"context_length": 16, "vocab_size": 64, "width": 64, "heads": 1, "layers": 1}
    config.pop("custom_text", None)
    if "timm_model_name" not in config["vision_cfg"]:
        config["vision_cfg"] |= {"layers": 2}
    return config


@functools.lru_cache(maxsize=2)
def tower(name):
    """A model of an architecture's own tower, shallow, with random weights."""
    config = open_clip.get_model_config(name)
    custom = config.pop("custom_text", False)
    config = _shallow(config)
    create = timm.create_model
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timm, "create_model", functools.partial(create, depth=2))
        model = (open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP)(**config)
    randomise(model, 0)
    return model.eval()


@functools.lru_cache(maxsize=2)
def encoder(name):
    return as_clip(tower(name))


def attend(clip, tokens, grid_hw, name):
    """Dense features by a method without a proxy."""
    attention = own_attention(ModelConfig(method=name))
    return clip.attend(tokens, grid_hw, attention, residual=METHODS[name].residual)


def pixels(*size_hw, seed=0):
    return torch.randn(1, 3, *size_hw, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", [*NATIVE, *TIMM])
def test_a_tower_gives_dense_features_by_every_method(name):
    clip = encoder(name)
    assert isinstance(clip, TimmClipEncoder if name in TIMM else ClipEncoder)
    with torch.inference_mode():
        for size_hw in SIZES:
            tokens, grid_hw = clip.trunk(pixels(*size_hw))
            patch = 14 if "14" in name else 32 if "32" in name else 16
            assert grid_hw == (size_hw[0] // patch, size_hw[1] // patch)
            found = {method: attend(clip, tokens, grid_hw, method) for method in ATTENTION}
            found["values"] = clip.project(clip.values(tokens, grid_hw))
            for dense in found.values():
                assert dense.shape == (1, grid_hw[0] * grid_hw[1], clip.embed_dim)
                torch.testing.assert_close(dense.norm(dim=-1), torch.ones(dense.shape[:2]))
            torch.testing.assert_close(found["values"], found["maskclip"], rtol=0, atol=1e-5)
            assert (found["clip"] - found["clearclip"]).abs().max() > 1e-3


@pytest.mark.parametrize("name", TIMM)
def test_the_clip_method_is_timms_own_last_block(name):
    clip, model = encoder(name), tower(name)
    trunk = clip.model.visual.trunk
    size = trunk.patch_embed.img_size
    with torch.inference_mode():
        image = pixels(*size)
        tokens, grid_hw = clip.trunk(image)
        dense = attend(clip, tokens, grid_hw, "clip")
        own = trunk.forward_features(image)  # the tower as built, at its native size
        patches = own[:, trunk.num_prefix_tokens :].flatten(0, 1)[:, None]
        if trunk.num_prefix_tokens:
            patches = torch.cat([patches, patches], dim=1)
        expected = F.normalize(model.visual.head(trunk.forward_head(patches)), dim=-1)
    assert trunk.num_prefix_tokens <= 1
    torch.testing.assert_close(dense[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", TIMM)
def test_an_image_of_equal_tokens_is_pooled_to_what_each_of_them_is(name):
    """This defines dense features, whatever the pooling."""
    clip = encoder(name)
    trunk = clip.model.visual.trunk
    token = torch.randn(1, 1, trunk.embed_dim, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        pooled = clip.model.visual.head(trunk.forward_head(trunk.norm(token.expand(-1, 50, -1))))
        dense = clip.to_text_space(token)
    torch.testing.assert_close(dense[:, 0], F.normalize(pooled, dim=-1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP", "EVA02-B-16", "PE-Core-B-16", "ViT-L-14-quickgelu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_proxyclip_with_every_tower(name, dtype):
    config = SegmenterConfig(
        ModelConfig(dtype=dtype), WindowConfig(short_side=112, crop=112, stride=56, pad_multiple=56)
    )
    tower.cache_clear()  # so that no other test gets networks in bfloat16
    encoder.cache_clear()
    segmenter = Segmenter(tower(name), TimmProxy(tiny_vit(), "offset"), config)
    images = [np.full((112, 150, 3), value, np.uint8) for value in (0, 128, 255)]
    images.append(np.random.default_rng(0).integers(0, 256, (112, 150, 3), dtype=np.uint8))
    for image in images:
        features = segmenter.encode(image).features
        assert torch.isfinite(features).all()
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(features.shape[:-1]))
    encoder.cache_clear()
    tower.cache_clear()


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, None], ids=["grey", "white", "black", "noise"])
@pytest.mark.parametrize("name", ["ViT-L-14-quickgelu", "ViT-B-16-SigLIP", "EVA02-B-16"])
def test_flat_and_noisy_windows_stay_finite(name, value):
    image = pixels(112, 112) * 5 if value is None else torch.full((1, 3, 112, 112), value)
    clip = encoder(name)
    with torch.inference_mode():
        tokens, grid_hw = clip.trunk(image)
        for method in ATTENTION:
            assert torch.isfinite(attend(clip, tokens, grid_hw, method)).all(), method


def test_weights_of_a_timm_tower_come_back_from_a_file(tmp_path, monkeypatch):
    """SigLIP by its name, made two blocks deep, with a local file."""
    config = _shallow(open_clip.get_model_config("ViT-B-16-SigLIP"))
    monkeypatch.setattr(timm, "create_model", functools.partial(timm.create_model, depth=2))
    monkeypatch.setattr(open_clip.factory, "get_model_config", lambda name: {**config, "custom_text": True})
    model = tower("ViT-B-16-SigLIP")
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, tmp_path / "siglip.safetensors")
    loaded = load_clip(ModelConfig(clip="ViT-B-16-SigLIP", clip_weights=str(tmp_path / "siglip.safetensors")))
    assert isinstance(loaded, TimmClipEncoder)
    assert loaded.mean == loaded.std == (0.5, 0.5, 0.5)
    with torch.inference_mode():
        features = [attend(clip, *clip.trunk(pixels(96, 64)), "clearclip") for clip in (loaded, as_clip(model))]
    assert torch.equal(*features)


def test_a_tokenizer_that_cannot_be_had_is_missed_only_when_it_is_used(monkeypatch):
    def no_network(name):
        raise OSError("no connection to the hub")

    tokenize = lazy_tokenizer("ViT-B-16-SigLIP")
    monkeypatch.setattr(open_clip, "get_tokenizer", no_network)
    with pytest.raises(FileNotFoundError, match="tokenizer of CLIP ViT-B-16-SigLIP is not on this machine"):
        tokenize(["a photo"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RN50", "ModifiedResNet, which is not supported; use an open_clip model"),
        ("convnext_base", "ConvNeXt, which has no last block"),
        ("MobileCLIP-B", "VisionTransformer, which embeds patches by a HybridEmbed"),
        ("coca_ViT-B-32", "pools by attention"),
    ],
)
def test_a_tower_that_cannot_be_taken_apart_is_refused(name, message):
    with torch.device("meta"):
        model = open_clip.create_model(name, load_weights=False, pretrained_text=False, device="meta")
    with pytest.raises(ValueError, match=message):
        as_clip(model)
