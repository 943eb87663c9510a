"""A preset at a benchmark has exactly the settings of the paper."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from reference import SHARED

from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.recipe import segmenter_config
from proxyclip.recipes.benchmarks import BENCHMARKS, SETTINGS, BenchmarkSettings
from proxyclip.recipes.presets import PRESETS, preset, preset_at
from proxyclip.vocabulary.names import Vocabulary

FACTS = SHARED / "facts" / "methods.md"


def facts_table():
    """The table of settings in the collected facts: {(method, benchmark): cell}."""
    lines = FACTS.read_text().split("## Settings per benchmark")[1].split("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    names = {shown: name for name, shown in BENCHMARKS.items()}
    return {
        (row[0].split()[0].lower(), names[column]): cell
        for row in rows[2:]
        for column, cell in zip(rows[0][1:], row[1:], strict=True)
    }


def parsed(cell, method):
    scale = re.search(r"scale (\d+)", cell)
    area = re.search(r"area_thd (\.\d+)", cell)
    short_side, windows, threshold = cell.split(", ")[:3]
    crop, stride = (0, 112) if windows == "whole image" else map(int, windows.split("/"))
    default = 50.0 if method == "clearclip" else 40.0
    return BenchmarkSettings(
        int(short_side),
        crop,
        stride,
        float(threshold),
        float(scale[1]) if scale else default,
        float(area[1]) if area else 0.0,
    )


@pytest.mark.skipif(not FACTS.is_file(), reason="the collected facts are not here")
def test_settings_are_those_of_the_papers():
    table = facts_table()
    assert {(method, name) for method in SETTINGS for name in SETTINGS[method]} == {
        key for key, cell in table.items() if cell != "-"
    }
    for (method, name), cell in table.items():
        if cell != "-":
            assert SETTINGS[method][name] == parsed(cell, method), (method, name)


@pytest.mark.parametrize("preset_name", ["proxyclip-b16-dino-b8", "clearclip-b16", "naclip-l14", "sclip-h14"])
def test_options_with_a_benchmark_are_its_row(preset_name):
    for name, settings in preset(preset_name).benchmarks.items():
        vocabulary = Vocabulary.from_name(name)
        options = LabelOptions(input="in", output="out", preset=preset_name, benchmark=name)
        config = segmenter_config(options, vocabulary)
        assert config == preset_at(preset_name, name).config == settings.applied_to(preset(preset_name).config)
        assert (vocabulary.background is None) == (settings.background_threshold == 0)


def test_sclip_on_voc21_in_full():
    config = preset_at("sclip-b16", "voc21").config
    assert (config.windows.short_side, config.windows.crop, config.windows.stride) == (336, 224, 112)
    assert (config.decode.logit_scale, config.decode.background_threshold) == (65.0, 0.1)
    assert config.decode.area_threshold == 0.1


def test_an_option_replaces_a_part_of_the_row():
    options = LabelOptions(input="in", output="out", benchmark="voc21", background_threshold=0.5, stride=56)
    config = segmenter_config(options, Vocabulary.from_name("voc21"))
    assert (config.decode.background_threshold, config.windows.stride, config.windows.crop) == (0.5, 56, 336)


def test_a_vocabulary_alone_takes_its_threshold_and_the_presets_windows():
    options = LabelOptions(input="in", output="out", vocabulary="coco_object", preset="clearclip-b16")
    config = segmenter_config(options, Vocabulary.from_name("coco_object"))
    assert config.decode.background_threshold == 0.4
    assert config.windows == preset("clearclip-b16").config.windows


@pytest.mark.parametrize(
    ("preset_name", "name", "message"),
    [
        ("proxyclip-b16-dino-b8", "voc12", "Unknown benchmark 'voc12'. Did you mean 'voc21'? Benchmarks: voc21, voc20"),
        ("clearclip-b16", "ade847", "no published settings for benchmark 'ade847'; it has settings for: voc21"),
        ("demo", "voc21", "Preset 'demo' has no published settings for benchmark 'voc21'; it has settings for: none"),
    ],
)
def test_what_no_paper_reports_is_refused(preset_name, name, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        preset_at(preset_name, name)


def test_without_a_benchmark_a_preset_keeps_its_settings():
    assert preset_at("sclip-b16", None) == preset("sclip-b16")
    with pytest.raises(ValueError, match="Unknown preset 'sclip-b61'"):
        preset_at("sclip-b61", None)


def test_at_a_benchmark_only_the_settings_of_a_preset_change():
    chosen = preset_at("sclip-b16", "voc21")
    assert replace(chosen, config=preset("sclip-b16").config) == preset("sclip-b16")


def test_a_job_needs_a_vocabulary_or_a_benchmark():
    with pytest.raises(ValueError, match="--vocabulary is missing"):
        LabelOptions(input="in", output="out")


def test_published_figures_stand_on_known_benchmarks():
    for name, chosen in PRESETS.items():
        if chosen.benchmarks:
            assert chosen.published_miou.keys() <= chosen.benchmarks.keys(), name
