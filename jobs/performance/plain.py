"""ProxyCLIP written as its equations read: the reference that the engine is measured against.

Window by window, attention written out, the similarity matrix copied for every head, the logits of all queries held at
the image's size. It takes the engine's networks, so that both have the same weights, and computes in their precision:
float32, or float16 as the public code does on a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from proxyclip.config import DecodeConfig, SegmenterConfig
from proxyclip.images.sizes import resize_image
from proxyclip.models.networks.clip import ClipEncoder
from proxyclip.models.networks.positions import interpolate_positions
from proxyclip.models.networks.proxy import TimmProxy
from proxyclip.models.windows import WindowPlan, plan_windows
from proxyclip.vocabulary.names import Vocabulary


@dataclass(frozen=True)
class PlainFeatures:
    """Unit dense features of every window, (grid_h, grid_w, E) each, in the plan's order."""

    windows: list[Tensor]
    plan: WindowPlan


class PlainSegmenter:
    """Gives the labels of `models.segmenter.Segmenter` for an open_clip CLIP and a timm proxy, slowly."""

    def __init__(self, clip: ClipEncoder, proxy: TimmProxy, config: SegmenterConfig) -> None:
        self.clip, self.proxy, self.config = clip, proxy, config

    @torch.inference_mode()
    def predict(self, image: npt.NDArray[np.uint8], vocabulary: Vocabulary) -> npt.NDArray[np.int64]:
        """Labels (H, W) of an image (H, W, 3)."""
        return self.decode(self.encode(image), vocabulary)

    @torch.inference_mode()
    def encode(self, image: npt.NDArray[np.uint8]) -> PlainFeatures:
        """Dense features, window by window."""
        plan = plan_windows((image.shape[0], image.shape[1]), self.config.windows)
        resized = torch.tensor(resize_image(image, (plan.y.resized, plan.x.resized))).permute(2, 0, 1).float() / 255
        weight = self.clip.model.visual.conv1.weight
        clip_pixels = _normalised(resized, self.clip.mean, self.clip.std).to(weight)
        windows = []
        for y in plan.y.starts:
            for x in plan.x.starts:
                cut = clip_pixels[None, :, y : y + plan.y.length, x : x + plan.x.length]
                cut = F.pad(cut, (plan.x.pad_before, plan.x.pad_after, plan.y.pad_before, plan.y.pad_after))
                windows.append(self._encode_window(cut).float())
        return PlainFeatures(windows, plan)

    def decode(self, features: PlainFeatures, vocabulary: Vocabulary) -> npt.NDArray[np.int64]:
        """Labels from features, as `decode_plainly`."""
        return decode_plainly(features, vocabulary, self.config.decode)

    def _encode_window(self, clip_pixels: Tensor) -> Tensor:
        """(1, 3, h, w) to unit dense features (grid_h, grid_w, E)."""
        tokens, clip_hw = self._clip_trunk(clip_pixels)
        values = self.clip.values(tokens, clip_hw)  # (1, N, D)
        shape = (3, 1, 1)
        pixels = clip_pixels * clip_pixels.new_tensor(self.clip.std).view(shape) + clip_pixels.new_tensor(
            self.clip.mean
        ).view(shape)
        features, proxy_hw = self._proxy_features(_normalised(pixels, self.proxy.mean, self.proxy.std))
        similarity = F.normalize(features, dim=-1) @ F.normalize(features, dim=-1).transpose(1, 2)
        model = self.config.model
        logits = model.gamma * (similarity - model.beta * similarity.mean())
        masked = logits < 0
        masked.diagonal(dim1=1, dim2=2).fill_(False)
        logits[masked] = -math.inf
        heads = self.clip.model.visual.transformer.resblocks[-1].attn.num_heads
        weights = logits.repeat(heads, 1, 1).softmax(dim=-1)  # (heads, N, N)
        grid = values.transpose(1, 2).unflatten(2, clip_hw)  # (1, D, h, w)
        values = F.interpolate(grid, size=proxy_hw, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
        mixed = weights @ values[0].unflatten(-1, (heads, -1)).transpose(0, 1)  # (heads, N, d)
        return self.clip.project(mixed.transpose(0, 1).flatten(1)[None])[0].unflatten(0, proxy_hw)

    def _clip_trunk(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        visual = self.clip.model.visual
        patches = visual.conv1(pixels)
        grid_hw = (patches.shape[2], patches.shape[3])
        tokens = torch.cat([visual.class_embedding.expand(1, 1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        stored = visual.positional_embedding
        positions = interpolate_positions(stored[1:], visual.grid_size, grid_hw, "offset")
        tokens = visual.ln_pre(tokens + torch.cat([stored[:1], positions.to(stored)]))
        for block in visual.transformer.resblocks[:-1]:
            attention = block.attn
            qkv = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
            tokens = tokens + attention.out_proj(_attend(qkv, attention.num_heads))
            tokens = tokens + block.mlp(block.ln_2(tokens))
        return tokens, grid_hw

    def _proxy_features(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        model: Any = self.proxy.model
        patches = model.patch_embed.proj(pixels)
        grid_hw = (patches.shape[2], patches.shape[3])
        positions = interpolate_positions(model.pos_embed[0, 1:], model.patch_embed.grid_size, grid_hw, self.proxy.rule)
        tokens = patches.flatten(2).transpose(1, 2) + positions.to(patches)
        tokens = torch.cat([model.cls_token + model.pos_embed[:, :1], tokens], dim=1)
        for block in model.blocks:
            mixed = _attend(block.attn.qkv(block.norm1(tokens)), block.attn.num_heads)
            tokens = tokens + block.ls1(block.attn.proj(mixed))
            tokens = tokens + block.ls2(block.mlp(block.norm2(tokens)))
        return model.norm(tokens)[:, 1:], grid_hw


@torch.inference_mode()
def decode_plainly(features: PlainFeatures, vocabulary: Vocabulary, config: DecodeConfig) -> npt.NDArray[np.int64]:
    """Labels from features: every query's logits at full size, then softmax, classes and argmax."""
    plan, device = features.plan, features.windows[0].device
    queries = torch.tensor(vocabulary.embeddings, device=device)
    canvas = torch.zeros(1, len(queries), plan.y.resized, plan.x.resized, device=device)
    count = torch.zeros(1, 1, plan.y.resized, plan.x.resized, device=device)
    starts = [(y, x) for y in plan.y.starts for x in plan.x.starts]
    for (y, x), dense in zip(starts, features.windows, strict=True):
        logits = (dense @ queries.T).permute(2, 0, 1)[None]  # (1, Q, grid_h, grid_w)
        logits = F.interpolate(logits, size=plan.padded_hw, mode="bilinear", align_corners=False)
        rows = slice(plan.y.pad_before, plan.y.pad_before + plan.y.length)
        columns = slice(plan.x.pad_before, plan.x.pad_before + plan.x.length)
        canvas[..., y : y + plan.y.length, x : x + plan.x.length] += logits[..., rows, columns]
        count[..., y : y + plan.y.length, x : x + plan.x.length] += 1
    logits = F.interpolate(
        canvas / count, size=(plan.y.original, plan.x.original), mode="bilinear", align_corners=False
    )[0]
    probabilities = (config.logit_scale * logits).softmax(dim=0)  # (Q, H, W)
    classes = torch.tensor(vocabulary.query_class, device=device)
    if vocabulary.num_classes < len(queries):
        member = F.one_hot(classes).T[:, :, None, None].to(probabilities)  # (K, Q, 1, 1)
        probabilities = torch.stack([(probabilities * own).amax(dim=0) for own in member])
    labels = probabilities.argmax(dim=0)
    if vocabulary.background is not None:
        labels[probabilities.amax(dim=0) < config.background_threshold] = vocabulary.background
    return labels.cpu().numpy()


def _attend(qkv: Tensor, heads: int) -> Tensor:
    """softmax(q k^T / sqrt d) v, written out: (1, N, 3 * D) to (1, N, D)."""
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def _normalised(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    shape = (3, 1, 1)
    return (pixels - pixels.new_tensor(mean).view(shape)) / pixels.new_tensor(std).view(shape)
