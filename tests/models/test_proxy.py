"""The proxies: patch features of timm's vision transformers."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from segment_anything.modeling import ImageEncoderViT
from tiny import PROXY_CONFIG, WINDOWS, random_image, random_vocabulary, tiny_clip, tiny_vit

from proxyclip.config import SegmenterConfig
from proxyclip.models.networks.proxy import IMAGENET_MEAN, IMAGENET_STD, Proxy, TimmProxy
from proxyclip.models.networks.proxy_sam import SamProxy
from proxyclip.models.segmenter import Segmenter


def pixels(*size_hw, batch=1):
    return torch.randn(batch, 3, *size_hw, generator=torch.Generator().manual_seed(0))


PREFIXES = {
    "cls": {},
    "registers": {"reg_tokens": 4},
    "registers without positions": {"reg_tokens": 4, "no_embed_class": True},
    "no prefix": {"class_token": False},
    "norm before the blocks": {"pre_norm": True},
}


@pytest.mark.parametrize("name", PREFIXES)
@pytest.mark.parametrize("rule", ["offset", "antialias"])
def test_at_the_native_size_features_are_timms_own(name, rule):
    model = tiny_vit(**PREFIXES[name])
    features, grid_hw = TimmProxy(model, rule)(pixels(56, 56, batch=2))
    with torch.no_grad():
        expected = model.forward_features(pixels(56, 56, batch=2))[:, model.num_prefix_tokens :]
    assert grid_hw == (7, 7)
    assert features.shape == (2, 49, 48)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", PREFIXES)
def test_antialiased_positions_are_timms_own_at_any_size(name):
    model = tiny_vit(**PREFIXES[name])
    features, grid_hw = TimmProxy(model, "antialias")(pixels(72, 40))
    dynamic = tiny_vit(**PREFIXES[name], dynamic_img_size=True)
    with torch.no_grad():
        expected = dynamic.forward_features(pixels(72, 40))[:, model.num_prefix_tokens :]
    assert grid_hw == (9, 5)
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-4)


def test_offset_positions_are_those_of_the_papers_dino():
    model = tiny_vit()
    proxy = TimmProxy(model, "offset")
    _, positions = proxy.position_embedding((14, 9))
    grid = model.pos_embed[0, 1:].T.reshape(1, -1, 7, 7)
    offset = F.interpolate(grid, scale_factor=(14.1 / 7, 9.1 / 7), mode="bicubic")
    torch.testing.assert_close(positions[0], offset[0].flatten(1).T)
    for other in ({}, {"antialias": True}):
        by_size = F.interpolate(grid, size=(14, 9), mode="bicubic", **other)
        assert (positions[0] - by_size[0].flatten(1).T).abs().max() > 1e-3
    by_timm = TimmProxy(model, "antialias")(pixels(112, 72))[0]
    assert (proxy(pixels(112, 72))[0] - by_timm).abs().max() > 1e-3


def test_at_the_native_grid_stored_positions_are_used_as_they_are():
    model = tiny_vit()
    prefix, positions = TimmProxy(model, "offset").position_embedding((7, 7))
    assert torch.equal(positions, model.pos_embed[:, 1:])
    assert torch.equal(prefix, model.cls_token + model.pos_embed[:, :1])


def test_bfloat16_gives_float32_features_near_the_exact_ones():
    rough = TimmProxy(tiny_vit())
    rough.set_trunk_dtype(torch.bfloat16)
    assert rough.model.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16
    features, exact = rough(pixels(64, 56))[0], TimmProxy(tiny_vit())(pixels(64, 56))[0]
    assert features.dtype == torch.float32
    assert 0 < (features - exact).norm() / exact.norm() < 0.1


def test_mean_and_std_come_from_the_arguments_or_the_model_or_imagenet():
    model = tiny_vit()
    assert TimmProxy(model).mean == IMAGENET_MEAN
    model.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    assert TimmProxy(model).std == (0.25, 0.25, 0.25)
    assert TimmProxy(model, mean=[0.1, 0.2, 0.3]).mean == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_sam_gives_its_neck_on_its_own_square(size):
    encoder = ImageEncoderViT(img_size=64, embed_dim=24, depth=1, num_heads=2, out_chans=8)
    proxy = SamProxy(encoder)
    features, grid_hw = proxy(torch.rand(2, 3, *size))
    assert (features.shape, grid_hw) == ((2, 16, 8), (4, 4))
    assert torch.isfinite(features).all()
    with pytest.raises(ValueError, match="ImageEncoderViT"):
        SamProxy(tiny_vit())


def test_a_square_proxy_sees_every_window_at_one_size():
    proxy = TimmProxy(tiny_vit(), "size", side_px=56)
    assert proxy(torch.rand(1, 3, 40, 100))[1] == (7, 7)


class ColourProxy(Proxy):
    """Mean colours of 8 x 8 pixels: a kind of proxy that the package does not know."""

    mean, std, patch_px = IMAGENET_MEAN, IMAGENET_STD, 8

    def set_trunk_dtype(self, dtype):
        pass

    def forward(self, pixels):
        colours = F.avg_pool2d(pixels, 8)  # (B, 3, h, w)
        return colours.flatten(2).transpose(1, 2), (colours.shape[2], colours.shape[3])


def test_a_segmenter_takes_a_new_kind_of_proxy():
    segmenter = Segmenter(tiny_clip(), ColourProxy(), SegmenterConfig(windows=WINDOWS))
    assert segmenter.encode(random_image(112, 112)).features.shape[2:4] == (14, 14)
    assert segmenter.predict(random_image(60, 90), random_vocabulary(3)).mask.shape == (60, 90)


def test_what_is_no_vision_transformer_is_refused():
    with pytest.raises(ValueError, match=r"ResNet, which TimmProxy does not support; use a timm\s+VisionTransformer"):
        TimmProxy(timm.models.ResNet(timm.models.resnet.BasicBlock, (1, 1, 1, 1), channels=(8, 8, 8, 8)))


def test_relative_positions_are_refused():
    with pytest.raises(ValueError, match="absolute position embeddings"):
        TimmProxy(tiny_vit(pos_embed="none"))


def test_a_distillation_token_is_refused():
    from timm.models.deit import VisionTransformerDistilled

    model = VisionTransformerDistilled(**{**PROXY_CONFIG, "global_pool": "token"})
    with pytest.raises(ValueError, match="VisionTransformerDistilled"):
        TimmProxy(model)


def test_a_convolutional_stem_is_refused():
    from timm.models.vision_transformer_hybrid import vit_tiny_r_s16_p8_224

    model = vit_tiny_r_s16_p8_224(img_size=64, embed_dim=48, depth=1, num_heads=3)
    with pytest.raises(ValueError, match=r"without a distillation token or convolutional stem"):
        TimmProxy(model)
