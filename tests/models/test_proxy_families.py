"""Every family of timm's vision transformers as a proxy, with random weights: grids, loading, licences."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from segment_anything import sam_model_registry
from tiny import WINDOWS, random_image, tiny_clip, tiny_vit

from proxyclip.config import ModelConfig, SegmenterConfig
from proxyclip.models.networks.proxy import TimmProxy
from proxyclip.models.networks.proxy_maps import FeatureMapProxy, as_proxy
from proxyclip.models.networks.weights import load_proxy
from proxyclip.models.segmenter import Segmenter
from proxyclip.recipes.proxies import VFMS


@dataclasses.dataclass(frozen=True)
class Family:
    """A small form of a timm model. stride_px: of its grid. side_px: its own square; None if it takes any size."""

    name: str
    small: dict[str, Any]
    stride_px: int = 16
    side_px: int | None = None
    proxy: type = FeatureMapProxy

    def model(self, seed: int = 0):
        torch.manual_seed(seed)
        fixed = self.side_px or self.proxy is TimmProxy or self.name.startswith("naflex")
        any_size = {} if fixed else {"dynamic_img_size": True}
        return timm.create_model(self.name, num_classes=0, **any_size, **self.small)


def small(embed_dim: int = 96, num_heads: int = 2, **more: Any) -> dict[str, Any]:
    return {"depth": 2, "embed_dim": embed_dim, "num_heads": num_heads, **more}


HIERA2 = {"stages": (1, 1, 2, 1), "embed_dim": 16, "global_att_blocks": (3,)}
FAMILIES = {
    "DINOv3": Family("vit_small_patch16_dinov3.lvd1689m", small()),
    "DINOv3 S+": Family("vit_small_plus_patch16_dinov3.lvd1689m", small()),
    "DINOv3, biases": Family("vit_small_patch16_dinov3_qkvb.lvd1689m", small()),
    "EUPE": Family("vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m", small()),
    "PE-Spatial": Family("vit_pe_spatial_base_patch16_512.fb", small()),
    "PE-Spatial L/14": Family("vit_pe_spatial_large_patch14_448.fb", small(), 14),
    "PE-Core": Family("vit_pe_core_tiny_patch16_384.fb", small(attn_pool_num_heads=2)),
    "C-RADIOv3": Family("naflexvit_base_patch16_radio_v3.c_radio", small()),
    "C-RADIOv4": Family("naflexvit_so400m_patch16_radio_v4.c_radio", small()),
    "C-RADIOv3, fixed": Family("vit_base_patch16_radio_v3.c_radio", small(), proxy=TimmProxy),
    "SigLIP 2": Family("vit_base_patch16_siglip_gap_384.v2_webli", small(), proxy=TimmProxy),
    "SigLIP 2, pooler": Family("vit_base_patch16_siglip_256.v2_webli", small(), proxy=TimmProxy),
    "SigLIP 2, NaFlex": Family("naflexvit_base_patch16_siglip.v2_webli", small()),
    "TIPSv2": Family("vit_base_patch14_reg1_tipsv2.webli", small(), 14, proxy=TimmProxy),
    "AugReg": Family("vit_small_patch16_224.augreg_in21k_ft_in1k", small(), proxy=TimmProxy),
    "MAE": Family("vit_base_patch16_224.mae", small(), proxy=TimmProxy),
    "DeiT": Family("deit_small_patch16_224.fb_in1k", small(), proxy=TimmProxy),
    "DeiT III": Family("deit3_small_patch16_224.fb_in22k_ft_in1k", small(), proxy=TimmProxy),
    "DeiT, distilled": Family("deit_small_distilled_patch16_224.fb_in1k", small()),
    "EVA-02": Family("eva02_small_patch14_224.mim_in22k", small(), 14),
    "ViT with RoPE": Family("vit_small_patch16_rope_mixed_224.naver_in1k", small()),
    "hybrid": Family("vit_tiny_r_s16_p8_224.augreg_in21k", small(), 32),
    "BEiT": Family("beit_base_patch16_224.in22k_ft_in22k", small(img_size=64), side_px=64),
    "BEiT v2": Family("beitv2_base_patch16_224.in1k_ft_in22k", small(img_size=64), side_px=64),
    "relative positions": Family("vit_relpos_small_patch16_224.sw_in1k", small(img_size=64), side_px=64),
    "CaiT": Family("cait_xxs24_224.fb_dist_in1k", small(img_size=64), side_px=64),
    "XCiT": Family("xcit_tiny_12_p16_224.fb_in1k", small(128, img_size=64), side_px=64),
    "SAM 2": Family("sam2_hiera_tiny.fb_r896_2pt1", HIERA2, side_px=896),
    "Hiera": Family("hiera_tiny_224.mae", {"stages": (1, 1, 1, 1), "embed_dim": 16}, side_px=224),
    "Swin": Family("swin_tiny_patch4_window7_224.ms_in1k", {"embed_dim": 24, "depths": (1, 1, 1, 1)}),
    "SAM": Family("samvit_base_patch16.sa1b", small(img_size=64, global_attn_indexes=(1,)), side_px=64),
}
WINDOW_SIZES = [(112, 112), (112, 168)]


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


def pixels(*size_hw: int) -> torch.Tensor:
    return torch.randn(2, 3, *size_hw, generator=torch.Generator().manual_seed(0))


def expected_grid(family, size_hw):
    if family.side_px:
        return (family.side_px // family.stride_px,) * 2
    half = 0.5 if family.proxy is FeatureMapProxy else 0  # the paper's models drop an incomplete patch
    return tuple(int(side / family.stride_px + half) for side in size_hw)


def test_features_lie_on_the_grid_where_their_pixels_are(family):
    """The grid is that of the family at both sizes, row-major, without prefix tokens."""
    proxy = as_proxy(family.model())
    assert type(proxy) is family.proxy
    for height, width in WINDOW_SIZES:
        windows = pixels(height, width)
        top, left = int(0.75 * height), int(0.25 * width)
        windows[1] = windows[0]
        windows[1, :, top - 16 : top + 16, left - 16 : left + 16] += 3  # a spot at three quarters down, one across
        features, grid_hw = proxy(windows)
        assert grid_hw == expected_grid(family, (height, width))
        assert features.shape[:2] == (2, grid_hw[0] * grid_hw[1])
        assert features.dtype == torch.float32
        row, column = divmod(int((features[1] - features[0]).norm(dim=1).argmax()), grid_hw[1])
        reach = 16 / height + 1 / grid_hw[0], 16 / width + 1 / grid_hw[1]
        assert abs((row + 0.5) / grid_hw[0] - 0.75) <= reach[0]
        assert abs((column + 0.5) / grid_hw[1] - 0.25) <= reach[1]


def test_flat_and_noisy_windows_stay_finite_and_bfloat16_is_near(family):
    proxy = as_proxy(family.model())
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (proxy.mean, proxy.std))
    kinds = [torch.full((3, 112, 112), value) for value in (0.0, 0.5, 1.0)]  # black, grey, white
    noise = torch.rand(3, 112, 112, generator=torch.Generator().manual_seed(0))
    windows = (torch.stack([*kinds, noise]) - mean) / std
    exact = proxy(windows)[0]
    assert torch.isfinite(exact).all()
    proxy.set_trunk_dtype(torch.bfloat16)
    rough = proxy(windows)[0]
    assert rough.dtype == torch.float32
    assert torch.isfinite(rough).all()
    assert 0 < (rough - exact)[3].norm() / exact[3].norm() < 0.05


@pytest.fixture
def small_models(monkeypatch):
    """timm makes the models of FAMILIES small."""
    create = timm.create_model
    by_name = {family.name: family.small for family in FAMILIES.values()}
    monkeypatch.setattr(timm, "create_model", lambda name, **kwargs: create(name, **kwargs, **by_name.get(name, {})))


def test_saved_weights_load_exactly(tmp_path, monkeypatch, family):
    model = family.model(seed=1)
    expected = as_proxy(model)(pixels(112, 168))[0]
    state = {name: value.clone() for name, value in model.state_dict().items() if not name.startswith("head.")}
    extra = {
        "head.weight": torch.ones(2, 2),
        "rope.periods": torch.ones(3),
    }  # a classifier, a table of rotary positions
    save_file(state | extra, tmp_path / "proxy.safetensors")
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **kwargs: create(name, **kwargs, **family.small))
    config = ModelConfig(proxy=family.name, proxy_weights=str(tmp_path / "proxy.safetensors"))
    proxy = load_proxy(config, 336)
    assert type(proxy) is family.proxy
    assert torch.equal(proxy(pixels(112, 168))[0], expected)
    assert (proxy.mean, proxy.std) == (as_proxy(model).mean, as_proxy(model).std)

    first = next(name for name in state if name.startswith(("blocks.0.", "layers.0.")))
    save_file({name: value for name, value in state.items() if name != first}, tmp_path / "proxy.safetensors")
    with pytest.raises(ValueError, match=rf"weights of proxy {family.name}: {first}: missing\.$"):
        load_proxy(config, 336)


@pytest.mark.parametrize("name", ["DINOv3", "PE-Spatial", "C-RADIOv3", "DeiT, distilled"])
def test_a_multiple_of_the_patch_is_taken_as_it_is_and_any_other_size_resized(name):
    """timm's own tokens are the reference. 280 pixels are 17.5 patches, resized to 18; 168 are 10.5, resized to 11."""
    model = FAMILIES[name].model()
    proxy = as_proxy(model)
    for size, seen in (((96, 160), (96, 160)), ((280, 168), (288, 176))):
        windows = pixels(*size)
        features, grid_hw = proxy(windows)
        resized = F.interpolate(windows, size=seen, mode="bilinear", align_corners=False)
        expected = model.forward_features(windows if size == seen else resized)
        assert grid_hw == (seen[0] // 16, seen[1] // 16)
        torch.testing.assert_close(features, expected[:, model.num_prefix_tokens :], rtol=0, atol=1e-5)


def test_a_sliver_has_at_least_one_patch():
    assert as_proxy(FAMILIES["DINOv3"].model())(pixels(7, 64))[1] == (1, 4)


def test_a_fixed_size_is_the_models_own_or_the_given_one():
    model = FAMILIES["SAM 2"].model()
    proxy = FeatureMapProxy(model, side_px=256)
    windows = pixels(112, 168)
    features, grid_hw = proxy(windows)
    resized = F.interpolate(windows, size=(256, 256), mode="bilinear", align_corners=False)
    (expected,) = model.forward_intermediates(resized, indices=[2], intermediates_only=True)  # the third of four stages
    assert grid_hw == (16, 16)
    assert torch.equal(features, expected.flatten(2).transpose(1, 2))


def test_the_final_norm_is_applied_where_timm_keeps_it_behind_the_pooling():
    model = FAMILIES["EVA-02"].model()
    torch.nn.init.uniform_(model.fc_norm.weight)
    features, _ = as_proxy(model)(pixels(112, 112))
    expected = model.fc_norm(model.forward_features(pixels(112, 112))[:, 1:])
    torch.testing.assert_close(features, expected, rtol=0, atol=1e-5)


def test_sams_neck_is_the_feature():
    model = FAMILIES["SAM"].model()
    expected = model.forward_features(pixels(64, 64)).flatten(2).transpose(1, 2)
    torch.testing.assert_close(as_proxy(model)(pixels(64, 64))[0], expected, rtol=0, atol=1e-5)


def test_plain_vision_transformers_keep_the_papers_rules():
    assert type(as_proxy(tiny_vit())) is TimmProxy
    assert type(as_proxy(tiny_vit(pos_embed="none"))) is FeatureMapProxy


def test_mean_and_std_are_the_models_own():
    proxy = as_proxy(FAMILIES["C-RADIOv3"].model())
    assert proxy.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert as_proxy(FAMILIES["PE-Spatial"].model()).std == (0.5, 0.5, 0.5)


MISFITS = {
    "resnet18": "ResNet, which has no attention",
    "convnext_tiny.dinov3_lvd1689m": "ConvNeXt, which has no attention",
    "mixer_s32_224": "MlpMixer, which has no attention",
    "levit_128": "LevitDistilled, which has no patch embedding",
    "nf_resnet50": "NormFreeNet, which has no attention",
    "dm_nfnet_f0": "NormFreeNet, which has no patch embedding",
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_has_no_patch_grid_is_refused_before_any_download(name, monkeypatch):
    monkeypatch.setattr("proxyclip.recipes.hub.HubFile.download", lambda file: pytest.fail("downloaded"))
    with pytest.raises(ValueError, match=f"The proxy is a {MISFITS[name]}; use a timm vision transformer"):
        load_proxy(ModelConfig(proxy=name), 336)


def test_a_map_that_is_no_grid_is_refused():
    model = FAMILIES["DINOv3"].model()
    model.forward_intermediates = lambda x, **kwargs: [x.flatten(2)]
    with pytest.raises(ValueError, match=r"Eva gives features of shape \(2, 3, 4096\) for a window of 64 x 64 pixels"):
        as_proxy(model)(pixels(64, 64))


def test_a_model_without_a_size_asks_for_one():
    model = FAMILIES["SAM 2"].model()
    model.pretrained_cfg = None
    with pytest.raises(ValueError, match="HieraDet does not say its input size; pass side_px"):
        as_proxy(model)


def test_a_segmenter_takes_any_of_them():
    config = SegmenterConfig(windows=WINDOWS)
    segmenter = Segmenter(tiny_clip(), FAMILIES["DINOv3"].model(), config)
    (dense,) = segmenter.encode_batch([random_image(112, 300)])
    assert dense.features.shape[2:4] == (7, 7)
    assert torch.isfinite(dense.features).all()


@pytest.mark.parametrize("name", VFMS)
def test_the_proxies_by_name_are_models_with_weights_and_their_licences(name):
    spec = VFMS[name]
    if spec.model.startswith("segment-anything/"):
        assert spec.model.removeprefix("segment-anything/") in sam_model_registry
        return
    pretrained = timm.get_pretrained_cfg(spec.model, allow_unregistered=False)
    assert pretrained.hf_hub_id
    assert pretrained.hf_hub_filename is None
    assert spec.licence.lower() == pretrained.license
    assert spec.positions == {"dino": "offset", "mae": "size"}.get(name.split("-")[0], "antialias")
    assert spec.square == name.startswith("mae-")


@pytest.mark.parametrize(
    ("proxy", "warned"),
    [
        ("eupe-t16", "FAIR-noncommercial-research-license"),
        ("hiera_tiny_224.mae", "cc-by-nc-4.0"),
        ("vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m", "fair-noncommercial-research-license"),
        ("dinov3-s16", None),
        ("vit_small_patch16_224.augreg_in21k_ft_in1k", None),
    ],
)
def test_non_commercial_weights_bring_a_warning(proxy, warned, tmp_path, small_models, caplog):
    name = VFMS[proxy].model if proxy in VFMS else proxy
    model = timm.create_model(name, num_classes=0)
    save_file(model.state_dict(), tmp_path / "proxy.safetensors")
    load_proxy(ModelConfig(proxy=proxy, proxy_weights=str(tmp_path / "proxy.safetensors")), 336)
    messages = [record.message for record in caplog.records if "commercial use" in record.message]
    wanted = [f"The weights of proxy {proxy} are licensed {warned}: not for commercial use."] if warned else []
    assert messages == wanted
