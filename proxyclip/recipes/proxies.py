"""Proxies by name: vision foundation models (VFMs), with the licences of their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PositionRule = Literal["offset", "antialias", "size"]


@dataclass(frozen=True)
class VfmSpec:
    """A vision foundation model that can be a proxy.

    model: the name of a timm model, or "segment-anything/" with one of its models. licence: of its weights.
    positions: how a plain vision transformer adapts its position embeddings to a window; other models have rules of
    their own. square: every window is resized to crop x crop, as ProxyCLIP does for MAE. fixed_size: the network
    resizes every window to its own square, whatever the crop.
    """

    model: str
    licence: str
    positions: PositionRule = "antialias"
    square: bool = False
    fixed_size: bool = False


_DINOV3 = "DINOv3-license"
_EUPE = "FAIR-noncommercial-research-license"
_RADIO = "NVIDIA-open-model-license"

VFMS: dict[str, VfmSpec] = {
    "dino-s8": VfmSpec("vit_small_patch8_224.dino", "Apache-2.0", "offset"),
    "dino-s16": VfmSpec("vit_small_patch16_224.dino", "Apache-2.0", "offset"),
    "dino-b8": VfmSpec("vit_base_patch8_224.dino", "Apache-2.0", "offset"),
    "dino-b16": VfmSpec("vit_base_patch16_224.dino", "Apache-2.0", "offset"),
    "dinov2-s14": VfmSpec("vit_small_patch14_dinov2.lvd142m", "Apache-2.0"),
    "dinov2-b14": VfmSpec("vit_base_patch14_dinov2.lvd142m", "Apache-2.0"),
    "dinov2-l14": VfmSpec("vit_large_patch14_dinov2.lvd142m", "Apache-2.0"),
    "dinov2-reg-s14": VfmSpec("vit_small_patch14_reg4_dinov2.lvd142m", "Apache-2.0"),
    "dinov2-reg-b14": VfmSpec("vit_base_patch14_reg4_dinov2.lvd142m", "Apache-2.0"),
    "dinov2-reg-l14": VfmSpec("vit_large_patch14_reg4_dinov2.lvd142m", "Apache-2.0"),
    "dinov3-s16": VfmSpec("vit_small_patch16_dinov3.lvd1689m", _DINOV3),
    "dinov3-splus16": VfmSpec("vit_small_plus_patch16_dinov3.lvd1689m", _DINOV3),
    "dinov3-b16": VfmSpec("vit_base_patch16_dinov3.lvd1689m", _DINOV3),
    "dinov3-l16": VfmSpec("vit_large_patch16_dinov3.lvd1689m", _DINOV3),
    "dinov3-hplus16": VfmSpec("vit_huge_plus_patch16_dinov3.lvd1689m", _DINOV3),
    "eupe-t16": VfmSpec("vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m", _EUPE),
    "eupe-s16": VfmSpec("vit_small_patch16_dinov3_qkvb.eupe_lvd1689m", _EUPE),
    "eupe-b16": VfmSpec("vit_base_patch16_dinov3_qkvb.eupe_lvd1689m", _EUPE),
    "pe-spatial-t16": VfmSpec("vit_pe_spatial_tiny_patch16_512.fb", "Apache-2.0"),
    "pe-spatial-s16": VfmSpec("vit_pe_spatial_small_patch16_512.fb", "Apache-2.0"),
    "pe-spatial-b16": VfmSpec("vit_pe_spatial_base_patch16_512.fb", "Apache-2.0"),
    "pe-spatial-l14": VfmSpec("vit_pe_spatial_large_patch14_448.fb", "Apache-2.0"),
    # timm's NaFlex variant uses RADIO's own position rule at every size.
    "radio-v3-b16": VfmSpec("naflexvit_base_patch16_radio_v3.c_radio", _RADIO),
    "radio-v3-l16": VfmSpec("naflexvit_large_patch16_radio_v3.c_radio", _RADIO),
    "radio-v4-so400m16": VfmSpec("naflexvit_so400m_patch16_radio_v4.c_radio", _RADIO),
    "radio-v4-h16": VfmSpec("naflexvit_huge_patch16_radio_v4.c_radio", _RADIO),
    "siglip2-b16": VfmSpec("vit_base_patch16_siglip_gap_384.v2_webli", "Apache-2.0"),
    "siglip2-l16": VfmSpec("vit_large_patch16_siglip_gap_384.v2_webli", "Apache-2.0"),
    "siglip2-so400m14": VfmSpec("vit_so400m_patch14_siglip_gap_378.v2_webli", "Apache-2.0"),
    "tipsv2-b14": VfmSpec("vit_base_patch14_reg1_tipsv2.webli", "Apache-2.0"),
    "tipsv2-l14": VfmSpec("vit_large_patch14_reg1_tipsv2.webli", "Apache-2.0"),
    "mae-b16": VfmSpec("vit_base_patch16_224.mae", "CC-BY-NC-4.0", "size", square=True),
    "mae-l16": VfmSpec("vit_large_patch16_224.mae", "CC-BY-NC-4.0", "size", square=True),
    "sam-b": VfmSpec("segment-anything/vit_b", "Apache-2.0", fixed_size=True),
    "sam-l": VfmSpec("segment-anything/vit_l", "Apache-2.0", fixed_size=True),
    "sam-h": VfmSpec("segment-anything/vit_h", "Apache-2.0", fixed_size=True),
    "sam2-t": VfmSpec("sam2_hiera_tiny.fb_r896_2pt1", "Apache-2.0", fixed_size=True),
    "sam2-s": VfmSpec("sam2_hiera_small.fb_r896_2pt1", "Apache-2.0", fixed_size=True),
    "sam2-bplus": VfmSpec("sam2_hiera_base_plus.fb_r896_2pt1", "Apache-2.0", fixed_size=True),
    "sam2-l": VfmSpec("sam2_hiera_large.fb_r1024_2pt1", "Apache-2.0", fixed_size=True),
}
