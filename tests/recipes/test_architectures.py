"""Names of CLIPs and proxies: known without torch, and refused with the nearest name."""

from __future__ import annotations

import json
import subprocess
import sys

import open_clip
import pytest

from proxyclip.config import ModelConfig
from proxyclip.recipes.architectures import check_clip_name, check_proxy_scale, embed_dim, vfm_spec
from proxyclip.recipes.presets import PRESETS
from proxyclip.recipes.proxies import VFMS


@pytest.mark.parametrize("name", open_clip.list_models())
def test_open_clips_architectures_are_known_with_their_width(name):
    check_clip_name(name)
    assert embed_dim(ModelConfig(clip=name)) == open_clip.get_model_config(name)["embed_dim"]


def test_the_width_of_a_local_clip_is_in_its_folder(tmp_path):
    config = ModelConfig(clip=f"local-dir:{tmp_path}")
    with pytest.raises(FileNotFoundError, match=r"open_clip_config\.json"):
        embed_dim(config)
    (tmp_path / "open_clip_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"open_clip_config\.json is not valid JSON"):
        embed_dim(config)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {}}))
    with pytest.raises(ValueError, match="embed_dim"):
        embed_dim(config)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 32}}))
    assert embed_dim(config) == 32


@pytest.mark.parametrize(("name", "near"), [("ViT-B16", "ViT-B-16"), ("ViT-B-16-quickgelo", "ViT-B-16-quickgelu")])
def test_an_unknown_clip_suggests_the_nearest(name, near):
    with pytest.raises(ValueError, match=rf"Unknown CLIP '{name}'\. Did you mean '{near}'\?.*local-dir:FOLDER"):
        check_clip_name(name)


@pytest.mark.parametrize("name", ["dino-b88", "dino-b88.tag"])
def test_an_unknown_proxy_suggests_the_nearest_and_lists_the_names(name):
    with pytest.raises(ValueError, match=rf"Unknown proxy '{name}'\. Did you mean 'dino-b8'\?.*local-dir:") as error:
        vfm_spec(name)
    assert all(known in str(error.value) for known in VFMS)


def test_any_model_of_timm_is_known_with_its_licence():
    assert vfm_spec("hiera_tiny_224.mae").licence == "cc-by-nc-4.0"


def test_presets_and_names_need_no_torch():
    code = f"""
import sys
from proxyclip.config import ModelConfig
from proxyclip.recipes.architectures import check_clip_name, check_proxy_scale, embed_dim, vfm_spec
from proxyclip.recipes.presets import PRESETS
from proxyclip.recipes.proxies import VFMS
from proxyclip.recipes.weights import weight_hashes
for name in {open_clip.list_models()}:
    embed_dim(ModelConfig(clip=name))
for name in VFMS:
    vfm_spec(name)
for preset in PRESETS.values():
    check_proxy_scale(preset.config.model, preset.config.windows.crop)
weight_hashes(PRESETS["demo"].config.model)
for check in (check_clip_name, vfm_spec):
    try:
        check("dino-b88")
    except ValueError:
        pass
print([name for name in ("torch", "ray", "timm", "open_clip") if name in sys.modules])
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_a_name_of_timm_is_known_before_timm_is_imported():
    code = "from proxyclip.recipes.architectures import vfm_spec; print(vfm_spec('vit_tiny_patch16_224_in21k').model)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "vit_tiny_patch16_224_in21k"


@pytest.mark.parametrize(("proxy", "crop"), [("mae-b16", 336), ("sam-b", 336), ("sam2-t", 336), ("sam2-t", 0)])
def test_a_proxy_of_fixed_size_is_refused_a_scale(proxy, crop):
    check_proxy_scale(ModelConfig(proxy=proxy), crop)
    with pytest.raises(ValueError, match=r"--quality.*0\.5.*--quality exact"):
        check_proxy_scale(ModelConfig(proxy=proxy, proxy_scale=0.5), crop)


@pytest.mark.parametrize(("proxy", "crop"), [("mae-b16", 0), ("dino-s8", 336), (None, 336)])
def test_other_proxies_take_any_scale(proxy, crop):
    check_proxy_scale(ModelConfig(proxy=proxy, proxy_scale=0.5), crop)


def test_presets_names_are_known():
    for preset in PRESETS.values():
        check_clip_name(preset.config.model.clip)
