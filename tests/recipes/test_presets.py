"""Presets are complete, and say what the paper says."""

from __future__ import annotations

import open_clip
import pytest

from proxyclip.recipes.architectures import LOCAL_DIR
from proxyclip.recipes.methods import METHODS
from proxyclip.recipes.presets import PRESETS, preset
from proxyclip.recipes.proxies import VFMS
from proxyclip.recipes.weights import weight_files
from proxyclip.vocabulary.names import bundled_names

NAMED = [name for name in PRESETS if name != "demo"]


@pytest.mark.parametrize("name", NAMED)
def test_presets_name_what_exists(name):
    chosen = preset(name)
    model = chosen.config.model
    assert model.method in METHODS
    assert model.clip_pretrained in open_clip.list_pretrained_tags_by_model(model.clip)
    if METHODS[model.method].needs_proxy:
        assert chosen.licences.keys() == {"clip", "proxy"}
        assert chosen.licences["proxy"] == VFMS[model.proxy].licence
    else:
        assert chosen.licences.keys() == {"clip"}
        assert model.proxy is None
    assert all(chosen.licences.values())
    for vocabulary in (*chosen.published_miou, *chosen.benchmarks):
        assert vocabulary in bundled_names()


@pytest.mark.parametrize("name", [name for name in NAMED if name.startswith("proxyclip-")])
def test_proxyclips_settings(name):
    config = preset(name).config
    assert (config.model.beta, config.model.gamma) == (1.2, 3.0)
    assert (config.windows.short_side, config.windows.crop, config.windows.stride) == (336, 336, 112)
    assert config.decode.logit_scale == 40.0


def test_the_relatives_settings():
    clearclip, naclip, sclip = (preset(f"{method}-b16").config for method in ("clearclip", "naclip", "sclip"))
    assert (clearclip.windows.short_side, clearclip.windows.crop, clearclip.windows.stride) == (448, 448, 224)
    assert (clearclip.windows.pad_multiple, clearclip.decode.logit_scale) == (16, 50.0)
    for config in (naclip, sclip):
        assert (config.windows.short_side, config.windows.crop, config.windows.stride) == (336, 224, 112)
        assert (config.windows.pad_multiple, config.decode.logit_scale) == (1, 40.0)
    assert (naclip.decode.pamr_steps, naclip.decode.pamr_dilations, sclip.decode.pamr_steps) == (10, (8, 16), 0)
    assert (naclip.windows.upsample_twice, sclip.windows.upsample_twice) == (True, False)


@pytest.mark.parametrize(
    ("name", "vocabulary", "miou"),
    [
        ("proxyclip-b16-dino-b8", "voc21", 61.3),
        ("proxyclip-b16-dino-b8", "ade20k", 20.2),
        ("proxyclip-b16-dino-b8", "coco_stuff", 26.5),
        ("proxyclip-b16-dino-b16", "voc21", 59.1),
        ("proxyclip-b16-dino-b16", "cityscapes", 38.1),
        ("proxyclip-h14-dino-b8", "voc21", 65.0),
        ("proxyclip-b16-dinov2-reg-b14", "voc20", 83.0),
        ("clearclip-b16", "context59", 35.9),
        ("naclip-b16", "cityscapes", 38.3),
        ("sclip-b16", "coco_object", 30.5),
        ("proxyclip-h14-dino-b8", "voc20", 83.3),
    ],
)
def test_the_papers_figures(name, vocabulary, miou):
    published = preset(name).published_miou
    assert published[vocabulary] == miou
    assert len(published) == 8


def test_what_the_paper_does_not_report_has_no_figure():
    assert preset("proxyclip-l14-dino-s16").published_miou == {}


def test_the_demo_needs_no_network():
    model = preset("demo").config.model
    assert model.clip.startswith(LOCAL_DIR)
    assert all(path.is_file() for path in weight_files(model).values())


@pytest.mark.parametrize("near", ["proxyclip-b16-dino-b9", "proxyclip_b16_dino_b8", "Demo"])
def test_an_unknown_name_suggests_the_nearest(near):
    meant = "demo" if near == "Demo" else "proxyclip-b16-dino-b8"
    with pytest.raises(ValueError, match=rf"Unknown preset '{near}'\. Did you mean '{meant}'\? Presets: ") as error:
        preset(near)
    assert all(name in str(error.value) for name in PRESETS)


def test_a_name_like_none_gets_the_list_alone():
    with pytest.raises(ValueError, match=r"Unknown preset 'zzz'\. Presets: proxyclip-b16"):
        preset("zzz")
