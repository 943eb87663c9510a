"""The fingerprint knows every field that changes a mask; values that make no sense are refused."""

from __future__ import annotations

import dataclasses

import pytest

from proxyclip.config import (
    DecodeConfig,
    ModelConfig,
    SegmenterConfig,
    WindowConfig,
    fingerprint,
    recipe_fields,
)

# Another value for every field, and whether it changes a mask. A new field must take its place here.
OTHER_VALUES = {
    "model.method": ("clearclip", True),
    "model.residual": (True, True),
    "model.clip": ("ViT-L-14-quickgelu", True),
    "model.clip_pretrained": ("dfn2b", True),
    "model.clip_weights": ("elsewhere.safetensors", False),
    "model.proxy": ("dino-s16", True),
    "model.proxy_weights": ("elsewhere.pth", False),
    "model.weights": ("s3://bucket/weights", False),
    "model.beta": (1.3, True),
    "model.gamma": (4.0, True),
    "model.gaussian_std": (4.0, True),
    "model.dtype": ("bfloat16", True),
    "windows.short_side": (448, True),
    "windows.long_side": (1024, True),
    "windows.crop": (224, True),
    "windows.stride": (56, True),
    "windows.pad_multiple": (16, True),
    "windows.upsample_twice": (True, True),
    "windows.fast_decode": (True, True),
    "model.proxy_scale": (0.5, True),
    "decode.logit_scale": (50.0, True),
    "decode.background_threshold": (0.1, True),
    "decode.area_threshold": (0.1, True),
    "decode.ignore_below": (0.1, True),
    "decode.thresholds": ((0.1, 2.0), True),
    "decode.pamr_steps": (10, True),
    "decode.pamr_dilations": ((1, 2), True),
    "decode.guided_radius": (2, True),
    "decode.presence": (0.5, True),
    "decode.active": (16, True),
}


def field_names():
    parts = {part.name: getattr(SegmenterConfig(), part.name) for part in dataclasses.fields(SegmenterConfig)}
    return [f"{part}.{field.name}" for part, config in parts.items() for field in dataclasses.fields(config)]


def changed(name, value):
    part, field = name.split(".")
    config = SegmenterConfig()
    return dataclasses.replace(config, **{part: dataclasses.replace(getattr(config, part), **{field: value})})


def test_every_field_has_declared_whether_it_changes_a_mask():
    assert set(field_names()) == set(OTHER_VALUES)


@pytest.mark.parametrize("name", field_names())
def test_the_fingerprint_changes_with_the_fields_that_change_a_mask(name):
    value, changes_mask = OTHER_VALUES[name]
    other = changed(name, value)
    assert other != SegmenterConfig()
    differs = fingerprint(recipe_fields(other)) != fingerprint(recipe_fields(SegmenterConfig()))
    assert differs == changes_mask


def test_recipes_without_thresholds_are_those_of_earlier_versions():
    assert fingerprint(recipe_fields(SegmenterConfig())) == (
        "31422f78279fc2b537743a3def966ae4850d9dcaf306f185c4c47394a321b90c"
    )


def test_the_fingerprint_is_the_same_in_every_order_and_process():
    recipe = {"b": 1, "a": {"d": [1, 2], "c": "ü"}}
    assert fingerprint(recipe) == fingerprint({"a": {"c": "ü", "d": [1, 2]}, "b": 1})
    assert fingerprint(recipe) == "3fb9943f5d1d7e553b17c8f52eaede7587054dc96e84e0c6a815b97fe039faa7"


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (WindowConfig, {"short_side": 0}, "windows.short_side is 0"),
        (WindowConfig, {"long_side": -5}, "windows.long_side"),
        (WindowConfig, {"stride": 0}, "windows.stride"),
        (WindowConfig, {"pad_multiple": 0}, "windows.pad_multiple"),
        (WindowConfig, {"crop": -1}, "windows.crop"),
        (WindowConfig, {"crop": 100, "stride": 101}, "pixels between windows"),
        (ModelConfig, {"gaussian_std": 0.0}, "model.gaussian_std"),
        (ModelConfig, {"gaussian_std": float("nan")}, "model.gaussian_std"),
        (ModelConfig, {"gaussian_std": float("inf")}, "model.gaussian_std"),
        (DecodeConfig, {"logit_scale": 0.0}, "decode.logit_scale"),
        (DecodeConfig, {"logit_scale": float("nan")}, "decode.logit_scale"),
        (DecodeConfig, {"background_threshold": 1.01}, "decode.background_threshold"),
        (DecodeConfig, {"background_threshold": float("nan")}, "decode.background_threshold"),
        (DecodeConfig, {"ignore_below": -0.1}, "decode.ignore_below"),
        (DecodeConfig, {"thresholds": (0.5, -0.1)}, "decode.thresholds"),
        (DecodeConfig, {"thresholds": (float("nan"),)}, "decode.thresholds"),
        (DecodeConfig, {"thresholds": (0.5,), "ignore_below": 0.1}, "replace decode.ignore_below"),
        (DecodeConfig, {"guided_radius": -1}, "decode.guided_radius is -1"),
        (DecodeConfig, {"guided_radius": 2, "pamr_steps": 10}, "set one of them to 0"),
        (DecodeConfig, {"presence": -0.5}, "decode.presence is -0.5"),
        (DecodeConfig, {"presence": float("nan")}, "decode.presence is nan"),
        (DecodeConfig, {"active": -1}, "decode.active is -1"),
    ],
)
def test_values_that_make_no_sense_are_refused(config, values, message):
    with pytest.raises(ValueError, match=message):
        config(**values)


def test_the_edges_of_what_makes_sense_are_allowed():
    WindowConfig(crop=0, stride=500)
    WindowConfig(crop=100, stride=100)
    DecodeConfig(background_threshold=0, ignore_below=1)
