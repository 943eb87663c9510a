"""Every method against outputs of its public implementation, with weights that anyone can rebuild."""

from __future__ import annotations

import dataclasses
import json
from functools import partial

import numpy as np
import open_clip
import pytest
import timm
import torch
import torch.nn.functional as F
from reference import SHARED, load_module
from segment_anything.modeling import ImageEncoderViT
from torch import nn

from proxyclip.config import DecodeConfig, ModelConfig, SegmenterConfig, WindowConfig
from proxyclip.models.decoding.refine import pamr, pamr_affinity
from proxyclip.models.networks.clip import ClipEncoder
from proxyclip.models.networks.proxy import TimmProxy
from proxyclip.models.networks.proxy_sam import SamProxy
from proxyclip.models.segmenter import Segmenter
from proxyclip.models.text import embed_queries
from proxyclip.vocabulary.names import Vocabulary
from proxyclip.vocabulary.templates import IMAGENET_TEMPLATES

MMSEG = ((122.771 / 255, 116.746 / 255, 104.094 / 255), (68.501 / 255, 66.632 / 255, 70.323 / 255))
IMAGENET = (np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225)))
CASES = SHARED / "golden" / "cases"

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the golden cases are not here")


def _cases(*patterns):
    return sorted(path.stem for pattern in patterns for path in CASES.glob(f"{pattern}.json"))


def _case(name):
    meta = json.loads((CASES / f"{name}.json").read_text())
    return meta, np.load(CASES / f"{name}.npz", allow_pickle=False)


@pytest.fixture(scope="module")
def weights():
    return load_module(SHARED / "golden" / "weights.py")


@pytest.fixture(scope="module")
def configs():
    return load_module(SHARED / "golden" / "configs.py")


@pytest.fixture(scope="module")
def clip(weights, configs):
    model = open_clip.model.CLIP(**configs.CLIP_TINY)
    model.load_state_dict(weights.fill(model.state_dict(), configs.CLIP_SEED, configs.CLIP_GAIN))
    return model


@pytest.fixture(scope="module")
def vfms(weights, configs):
    """The proxies' networks by name. Methods without a proxy get one too, and ignore it."""
    models = {
        "dino": timm.models.VisionTransformer(**configs.DINO_TINY),
        "dinov2": timm.models.VisionTransformer(**configs.DINOV2_TINY),
        "mae": timm.models.VisionTransformer(**configs.MAE_TINY),
        "sam": ImageEncoderViT(norm_layer=partial(nn.LayerNorm, eps=1e-6), **configs.SAM_TINY),
    }
    for model in models.values():
        model.load_state_dict(weights.fill(model.state_dict(), configs.VFM_SEED, configs.VFM_GAIN))
    return models


def _proxy(vfms, name, crop):
    model, normalisation = vfms[name], _proxy_normalisation()
    if name == "sam":
        return SamProxy(model, *normalisation)
    rule = {"dino": "offset", "dinov2": "antialias", "mae": "size"}[name]
    return TimmProxy(model, rule, *normalisation, side_px=crop if name == "mae" and crop else None)


def _proxy_normalisation():
    """The reference normalises with MMSEG's constants, undoes it with OpenAI's, which differ by 3e-7, and
    normalises with ImageNet's. A similarity may lie that close to the cut, so the cases need the same."""
    (mean, std), (undo_mean, undo_std) = MMSEG, (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    ratio = np.array(std) / undo_std
    return (IMAGENET[0] - undo_mean) * ratio + mean, IMAGENET[1] * ratio


@pytest.fixture(params=[1, 4], ids=["unbatched", "batched"])
def windows_at_once(request):
    """Windows one by one, as on a CPU, and several together, as on a GPU."""
    return request.param


# The method and residual of each case, from the attention and arch in its name.
FAMILY = {
    "clearclip_tiny_ClearCLIP_nores": ("clearclip", False),
    "clearclip_tiny_ClearCLIP_res": ("clearclip", True),
    "clearclip_tiny_MaskCLIP_res": ("maskclip", True),
    "clearclip_tiny_SCLIP_nores": ("sclip", False),
    "clearclip_tiny_SCLIP_res": ("sclip", True),
    "clearclip_tiny_vanilla_nores": ("clip", False),
    "clearclip_tiny_vanilla_res": ("clip", True),
    "naclip_tiny_pamr10": ("naclip", None),
    "naclip_tiny_reduced_kk_std5": ("naclip-kk", None),
    "naclip_tiny_reduced_naclip_std5": ("naclip", None),
    "naclip_tiny_reduced_nonly_std5": ("naclip-nonly", None),
    "naclip_tiny_vanilla_csa_std5": ("sclip", True),
    "naclip_tiny_vanilla_naclip_std5": ("naclip", True),
    "naclip_tiny_vanilla_vanilla_std5": ("clip", True),
    "sclip_tiny": ("sclip", None),
}
PAD_MULTIPLE = {"proxyclip": 56, "proxyclipfixed": 56, "clearclip": 16, "naclip": 1, "sclip": 1}


def _segmenter(clip, vfms, meta, name, windows_at_once):
    params = meta.get("params") or {"slide_crop": 112, "slide_stride": 56}
    assert meta["normalise"] == "mmseg"
    family = name.split("_")[0]
    method, residual = next((FAMILY[case] for case in FAMILY if name.startswith(case + "_")), ("proxyclip", None))
    config = SegmenterConfig(
        ModelConfig(method=method, residual=residual, beta=params.get("beta", 1.2), gamma=params.get("gamma", 3.0)),
        WindowConfig(
            short_side=10_000,
            long_side=10_000,
            crop=params["slide_crop"],
            stride=params["slide_stride"],
            pad_multiple=PAD_MULTIPLE[family],
            upsample_twice=family == "naclip",
        ),
        DecodeConfig(
            params.get("logit_scale", 40), params.get("prob_thd", 0.0), pamr_steps=10 if "pamr10" in name else 0
        ),
    )
    proxy = _proxy(vfms, meta.get("vfm", "dino"), params["slide_crop"])
    segmenter = Segmenter(ClipEncoder(clip, None, *MMSEG), proxy, config)
    segmenter.windows_at_once = windows_at_once
    return segmenter


def _encode_as_is(segmenter, image):
    """Encode without resizing, since cases start from the resized image."""
    windows = dataclasses.replace(
        segmenter.config.windows, short_side=min(image.shape[:2]), long_side=max(image.shape[:2])
    )
    segmenter.config = dataclasses.replace(segmenter.config, windows=windows)
    return segmenter.encode(image)


def _vocabulary(arrays, background=None):
    classes = arrays["query_idx"]
    names = [[f"class {c} query {q}" for q in np.flatnonzero(classes == c)] for c in range(classes.max() + 1)]
    vocabulary = Vocabulary.from_names(names).with_embeddings(arrays["query_features"])
    return dataclasses.replace(vocabulary, background=background)


def _published_cases(*, reference_is_right):
    patterns = ("proxyclip_*", "proxyclipfixed_*", "clearclip_*", "naclip_*", "sclip_*")
    metas = {case: _case(case)[0] for case in _cases(*patterns) if "batch2" not in case}
    wrong = {case for case, meta in metas.items() if meta["reference_is_buggy_here"] or meta["reference_error"]}
    return [case for case in metas if (case not in wrong) == reference_is_right]


def _record(record_property, segmenter, meta, check):
    """For docs/make_methods_table.py, which counts the passed checks of each method."""
    record_property("method", segmenter.config.model.method)
    record_property("proxy", meta["vfm"] if segmenter.proxy else "")
    record_property("check", check)


@pytest.mark.parametrize("name", _published_cases(reference_is_right=False))
def test_where_the_reference_is_wrong_features_are_finite(name, windows_at_once, clip, vfms, record_property):
    """It scrambles windows that are not square, returns NaN, or crashes: there is nothing to compare with."""
    meta, arrays = _case(name)
    segmenter = _segmenter(clip, vfms, meta, name, windows_at_once)
    _record(record_property, segmenter, meta, "finite")
    features = _encode_as_is(segmenter, arrays["image"]).at_size(tuple(meta["ori_shape"]))
    assert torch.isfinite(features.features).all()
    vocabulary = Vocabulary.from_names(["sky", "grass"]).with_embeddings(np.eye(2, 32, dtype=np.float32))
    assert segmenter.decode(features, vocabulary).mask.shape == tuple(meta["ori_shape"])


@pytest.mark.parametrize("name", _published_cases(reference_is_right=True))
def test_a_method_matches_the_reference(name, windows_at_once, clip, vfms, record_property):
    meta, arrays = _case(name)
    segmenter = _segmenter(clip, vfms, meta, name, windows_at_once)
    _record(record_property, segmenter, meta, "equal")
    features = _encode_as_is(segmenter, arrays["image"]).at_size(tuple(meta["ori_shape"]))
    assert torch.isfinite(features.features).all()
    vocabulary = _vocabulary(arrays, background=0)
    result = segmenter.decode(features, vocabulary)

    dense = torch.from_numpy(arrays["clip_feat"])[0]
    ours = features.features[0, 0].flatten(0, 1)
    ours = ours[:: len(ours) // len(dense)]  # only a part of SAM's is stored
    difference = (ours - F.normalize(dense, dim=-1)).norm() / F.normalize(dense, dim=-1).norm()
    assert difference < 1e-4

    logits = segmenter.logits(features, vocabulary)  # refined, where the method refines
    step = -(-logits.shape[1] // arrays["logits"].shape[1])
    error = np.abs(logits[:, ::step, ::step].numpy() - arrays["logits"])
    # Some of SAM's 17 million similarities are within rounding of the cut, so their patches may differ.
    assert (np.percentile(error, 99) if meta.get("vfm") == "sam" else error.max()) < 1e-4

    by_query = (logits * segmenter.config.decode.logit_scale).softmax(dim=0)
    by_class = torch.stack([by_query[arrays["query_idx"] == c].amax(dim=0) for c in range(vocabulary.num_classes)])
    np.testing.assert_allclose(result.confidence, by_class.amax(dim=0), atol=1e-5)
    if meta["method"].startswith("NACLIP"):  # it divides by the sum after the argmax
        by_class = by_class / by_class.sum(dim=0)
    step = -(-by_class.shape[1] // arrays["probs"].shape[1])
    error = np.abs(by_class[:, ::step, ::step].numpy() - arrays["probs"])
    assert (np.percentile(error, 99) if meta.get("vfm") == "sam" else error.max()) < 1e-3
    assert (result.mask == arrays["pred"]).mean() >= 0.999


@pytest.mark.parametrize("name", _cases("proxyclip_*_batch2"))
def test_an_image_in_a_batch_matches_the_reference_alone(name, windows_at_once, clip, vfms):
    meta, arrays = _case(name)
    segmenter = _segmenter(clip, vfms, meta, name, windows_at_once)
    _encode_as_is(segmenter, arrays["image0"])
    both = segmenter.encode_batch([arrays["image0"], arrays["image1"]])
    queries = torch.from_numpy(arrays["query_features"])
    for features, expected in zip(both, arrays["logits_single"], strict=True):
        window = features.features[0, 0] @ queries.T  # (grid_h, grid_w, Q)
        logits = F.interpolate(window.permute(2, 0, 1)[None], size=(112, 112), mode="bilinear")[0, :, ::4, ::4]
        np.testing.assert_allclose(logits.numpy(), expected, atol=1e-4, rtol=0)


def test_text_embeddings_match_the_reference(clip):
    meta, arrays = _case("text_tiny_clip")
    encoder = ClipEncoder(clip)
    prompts = [IMAGENET_TEMPLATES[0].format(word) for word in meta["words"]]
    np.testing.assert_array_equal(encoder.tokenizer(prompts).numpy(), arrays["tokens_template0"])
    first = F.normalize(torch.from_numpy(arrays["text_feat_template0"]), dim=-1)
    assert (encoder.embed_text(prompts) - first).norm() / first.norm() < 1e-4
    embeddings = embed_queries(encoder, meta["words"]).numpy()
    assert np.linalg.norm(embeddings - arrays["query_features"]) / np.linalg.norm(arrays["query_features"]) < 1e-4


@pytest.mark.parametrize(
    ("output", "steps", "dilations"),
    [("out1_d1", 1, (1,)), ("out10_d8_16", 10, (8, 16)), ("out5_d1_2_4", 5, (1, 2, 4))],
)
def test_pamr_matches_the_reference(output, steps, dilations):
    _, arrays = _case("pamr_direct")
    image = torch.from_numpy(arrays["image"]).permute(2, 0, 1).float() / 255
    image = (image - torch.tensor(MMSEG[0]).view(3, 1, 1).float()) / torch.tensor(MMSEG[1]).view(3, 1, 1).float()
    refined = pamr(torch.from_numpy(arrays["mask"])[0], pamr_affinity(image, dilations), dilations, steps)
    np.testing.assert_allclose(refined.numpy(), arrays[output][0], atol=1e-4, rtol=0)
