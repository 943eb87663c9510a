"""CLIP split before its last block: the parts together are open_clip's own forward pass."""

from __future__ import annotations

import open_clip
import pytest
import torch
import torch.nn.functional as F
from tiny import EMBED_DIM, tiny_clip

from proxyclip.config import ModelConfig
from proxyclip.models.attention import ATTENTION, own_attention
from proxyclip.models.networks.clip import ClipEncoder
from proxyclip.recipes.methods import METHODS


@pytest.fixture(scope="module")
def model():
    return tiny_clip()


@pytest.fixture(scope="module")
def clip(model):
    return ClipEncoder(model)


def attend(clip, tokens, grid_hw, name):
    """Dense features by a method without a proxy."""
    attention = own_attention(ModelConfig(method=name))
    return clip.attend(tokens, grid_hw, attention, residual=METHODS[name].residual)


def pixels(*size_hw, batch=1, seed=0):
    return torch.randn(batch, 3, *size_hw, generator=torch.Generator().manual_seed(seed))


def test_at_the_native_grid_stored_positions_are_used_as_they_are(clip, model):
    assert torch.equal(clip.position_embedding((7, 7)), model.visual.positional_embedding)


@pytest.mark.parametrize("grid_hw", [(14, 14), (5, 9), (7, 8), (1, 49)])
def test_other_grids_are_sampled_with_the_offset_of_the_papers_model(clip, model, grid_hw):
    positions = clip.position_embedding(grid_hw)
    stored = model.visual.positional_embedding
    assert torch.equal(positions[:1], stored[:1])
    grid = stored[1:].T.reshape(1, -1, 7, 7)
    offset = F.interpolate(grid, scale_factor=tuple((side + 0.1) / 7 for side in grid_hw), mode="bicubic")
    by_size = F.interpolate(grid, size=grid_hw, mode="bicubic")
    torch.testing.assert_close(positions[1:], offset[0].flatten(1).T)
    assert (positions[1:] - by_size[0].flatten(1).T).abs().max() > 1e-3


@pytest.mark.parametrize("ls_init_value", [None, 0.3])
def test_all_blocks_together_are_open_clips_own_forward(ls_init_value):
    model = tiny_clip(vision_cfg={"ls_init_value": ls_init_value})
    clip, image = ClipEncoder(model), pixels(112, 112, batch=2)
    tokens, grid_hw = clip.trunk(image)
    dense = attend(clip, tokens, grid_hw, "clip")
    model.visual.output_tokens = True
    with torch.no_grad():
        patches = model.visual(image)[1] @ model.visual.proj  # (2, 49, E)
    assert grid_hw == (7, 7)
    torch.testing.assert_close(dense, F.normalize(patches, dim=-1), rtol=0, atol=1e-5)


def test_maskclip_is_every_patchs_own_value(clip):
    tokens, grid_hw = clip.trunk(pixels(80, 112))
    values = clip.values(tokens, grid_hw)
    assert values.shape == (1, 35, 128)
    torch.testing.assert_close(attend(clip, tokens, grid_hw, "maskclip"), clip.project(values), rtol=0, atol=1e-6)


def test_values_are_those_of_open_clips_block(clip, model):
    tokens, grid_hw = clip.trunk(pixels(112, 112))
    block = model.visual.transformer.resblocks[-1]
    projected = block.ln_1(tokens) @ block.attn.in_proj_weight.T + block.attn.in_proj_bias
    torch.testing.assert_close(clip.values(tokens, grid_hw), projected[:, 1:, 256:], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ATTENTION)
def test_dense_features_are_unit_and_methods_differ(clip, name):
    tokens, grid_hw = clip.trunk(pixels(112, 96))
    dense = attend(clip, tokens, grid_hw, name)
    assert dense.shape == (1, 42, EMBED_DIM)
    torch.testing.assert_close(dense.norm(dim=-1), torch.ones(1, 42))
    for other in set(ATTENTION) - {name}:
        assert (dense - attend(clip, tokens, grid_hw, other)).abs().max() > 0.001


def test_the_remainder_that_the_patch_does_not_divide_is_dropped_right_and_bottom(clip):
    image = pixels(120, 127)
    tokens, grid_hw = clip.trunk(image)
    assert grid_hw == (7, 7)
    assert torch.equal(tokens, clip.trunk(image[:, :, :112, :112].contiguous())[0])


def test_a_bfloat16_trunk_gives_float32_features_near_the_exact_ones(clip):
    rough = ClipEncoder(tiny_clip())
    rough.set_trunk_dtype(torch.bfloat16)
    assert rough.model.visual.transformer.resblocks[0].mlp.c_fc.weight.dtype == torch.bfloat16
    assert rough.model.visual.transformer.resblocks[-1].mlp.c_fc.weight.dtype == torch.float32
    image = pixels(112, 112)
    dense, exact = (attend(each, *each.trunk(image), "clearclip") for each in (rough, clip))
    assert dense.dtype == torch.float32
    assert 0 < (dense - exact).norm() / exact.norm() < 0.05


def test_text_features_are_open_clips_made_unit(clip, model):
    prompts = ["a photo of a cat.", "a photo of a dog."]
    features = clip.embed_text(prompts)
    expected = model.encode_text(open_clip.tokenize(prompts), normalize=True)
    assert clip.embed_dim == EMBED_DIM
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-6)
    assert (features[0] - features[1]).abs().max() > 0.01


def test_mean_and_std_come_from_the_arguments_or_the_model_or_openai():
    model = tiny_clip()
    assert ClipEncoder(model).mean == open_clip.OPENAI_DATASET_MEAN
    model.visual.preprocess_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    assert ClipEncoder(model).std == (0.4, 0.5, 0.6)
    assert ClipEncoder(model, mean=[0.5, 0.5, 0.5]).mean == (0.5, 0.5, 0.5)


def test_a_resnet_tower_is_refused():
    model = tiny_clip(vision_cfg={"layers": (1, 1, 1, 1), "width": 16, "image_size": 64, "head_width": 16})
    with pytest.raises(ValueError, match=r"ModifiedResNet, which is not supported"):
        ClipEncoder(model)


def test_attention_pooling_is_refused():
    model = tiny_clip(vision_cfg={"attentional_pool": True, "attn_pooler_heads": 2})
    with pytest.raises(ValueError, match="pools by attention"):
        ClipEncoder(model)


def test_other_blocks_are_refused():
    model = tiny_clip(vision_cfg={"scale_attn": True})
    with pytest.raises(ValueError, match="CustomResidualAttentionBlock"):
        ClipEncoder(model)


def test_what_is_no_clip_is_refused():
    with pytest.raises(ValueError, match="NoneType"):
        ClipEncoder(torch.nn.Linear(2, 2))
