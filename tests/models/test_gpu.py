"""What runs on GPUs only: one-pass labels, counting, results that nothing waits for, compiled networks."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from tiny import random_image, random_vocabulary, tiny_clip, tiny_segmenter, tiny_vit

from proxyclip.config import SegmenterConfig, WindowConfig
from proxyclip.models.decoding import fused, reduce
from proxyclip.models.decoding.decode import decode_features
from proxyclip.models.decoding.queries import Queries
from proxyclip.models.kernels.gpu import Float32Products
from proxyclip.models.networks.positions import GridCache
from proxyclip.models.segmenter import Segmenter
from proxyclip.pipeline.stages.decode import decode_images

WINDOWS = WindowConfig(short_side=112, crop=112, stride=56, pad_multiple=16)

# Triton's interpreter runs the kernel on a CPU; it must be chosen before triton is imported.
INTERPRETED = """
import os
os.environ["TRITON_INTERPRET"] = "1"
import torch
from proxyclip.models.decoding import fused
for classes, queries in ((1, 1), (3, 3), (5, 9), (21, 21), (847, 847)):
    logits = torch.randn(7, 5, queries, generator=torch.Generator().manual_seed(queries)) * 5
    logits[0, 0] = 1.0  # a tie of all
    by_class = logits if classes == queries else logits[..., :classes].clone()
    best, index, confidence, margin = fused.top_two(by_class, logits)
    wanted, at = by_class.max(dim=-1, keepdim=True)
    second = by_class.scatter(-1, at, -torch.inf).amax(dim=-1, keepdim=True)
    probability = 1 / (logits - wanted).exp().sum(dim=-1, keepdim=True)
    torch.testing.assert_close(best, wanted)
    assert (index == at).all() and index[0, 0] == 0
    torch.testing.assert_close(confidence, probability)
    torch.testing.assert_close(margin, probability * (1 - (second - wanted).exp()))
print("done")
"""

gpu = pytest.mark.gpu
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.skipif(fused.triton is None, reason="triton is not installed")
def test_the_kernel_gives_winner_confidence_and_margin():
    ran = subprocess.run([sys.executable, "-c", INTERPRETED], capture_output=True, text=True, timeout=300)
    assert ran.stdout == "done\n", ran.stderr


def test_counting_without_waiting_is_bincount():
    labels = torch.randint(0, 7, (1001,), generator=torch.Generator().manual_seed(0))
    weights = torch.rand(1001, dtype=torch.float64)
    assert torch.equal(reduce._counted(labels, minlength=9), torch.bincount(labels, minlength=9))
    torch.testing.assert_close(
        reduce._counted(labels, weights, minlength=9), torch.bincount(labels, weights, minlength=9)
    )


def test_positions_are_computed_once_for_a_grid_and_again_when_weights_change():
    weight, made = torch.nn.Parameter(torch.ones(3)), []
    cache = GridCache(at_most=2)

    def get(grid_hw):
        return cache.get(weight, grid_hw, lambda: made.append(grid_hw) or weight * 2)

    for grid_hw in [(1, 2), (1, 2), (2, 1), (1, 2), (3, 3), (2, 1)]:
        assert get(grid_hw).tolist() == [2, 2, 2]
    assert made == [(1, 2), (2, 1), (3, 3), (2, 1)]  # two are kept: the last used
    with torch.no_grad():
        weight += 1
    assert get((2, 1)).tolist() == [4, 4, 4]


def test_products_are_exact_again_after_the_block():
    before = torch.get_float32_matmul_precision()
    exact, rounded = Float32Products(torch.float32), Float32Products(torch.bfloat16)
    with rounded:
        assert torch.get_float32_matmul_precision() == "high"
        with exact:
            assert torch.get_float32_matmul_precision() == "highest"
        with rounded:
            assert torch.get_float32_matmul_precision() == "high"
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


def test_compiled_networks_are_for_gpus():
    with pytest.raises(ValueError, match="for GPUs"):
        Segmenter(tiny_clip(), tiny_vit(), compiled=True)


@gpu
@needs_cuda
@pytest.mark.parametrize("counts", [[1] * 5, [1, 3, 7, 1], [1]])
def test_labels_on_a_gpu_are_those_on_a_cpu(counts, monkeypatch):
    segmenter = tiny_segmenter()
    features = segmenter.encode(random_image(90, 130))
    embeddings = torch.nn.functional.normalize(torch.randn(sum(counts), features.dim), dim=-1)
    query_class = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    there = type(features)(features.features.cuda(), features.plan, features.resized.cuda())
    on_cpu = decode_features(features, Queries.of(embeddings, query_class), logit_scale=40.0)
    for at_once in (None, 5000):
        queries = Queries.of(embeddings.cuda(), query_class.cuda())
        on_gpu = decode_features(there, queries, logit_scale=40.0, logits_at_once=at_once)
        assert (on_gpu.winner.cpu() == on_cpu.winner).float().mean() > 0.999
        torch.testing.assert_close(on_gpu.confidence.cpu(), on_cpu.confidence, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(on_gpu.margin.cpu(), on_cpu.margin, atol=1e-4, rtol=1e-4)


@gpu
@needs_cuda
def test_nothing_waits_for_the_gpu_before_results_are_fetched():
    segmenter = Segmenter(tiny_clip(), tiny_vit(), SegmenterConfig(windows=WINDOWS), device="cuda", batch_windows=4)
    images, vocabulary = [random_image(120, 200), random_image(130, 130)], random_vocabulary(5)
    wanted = [each.wait().mask for each in decode_images(segmenter, segmenter.encode_batch(images), vocabulary, 4)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        pending = decode_images(segmenter, segmenter.encode_batch(images), vocabulary, 4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for found, mask in zip(pending, wanted, strict=True):
        np.testing.assert_array_equal(found.wait().mask, mask)


@gpu
@needs_cuda
def test_compiled_networks_give_the_same_features():
    config = SegmenterConfig(windows=WINDOWS)
    plain, compiled = (
        Segmenter(tiny_clip(), tiny_vit(), config, device="cuda", batch_windows=4, compiled=each)
        for each in (False, True)
    )
    for image in (random_image(120, 200), random_image(60, 400)):
        one, other = plain.encode(image).features, compiled.encode(image).features
        assert (one * other).sum(dim=-1).min() > 0.9999
