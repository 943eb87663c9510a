"""The attention of CLIP's last block, one function per method.

Weights are (B, heads, T, T) over CLIP's tokens, or (B, N, N) over the proxy's patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from proxyclip.config import ModelConfig


def proxy_attention(features: Tensor, *, beta: float, gamma: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Attention weights from the similarity of a proxy's patch features (ProxyCLIP, eq. 3-5).

    features: (B, N, C), any scale. Returns (B, N, N) in `dtype`; rows sum to 1. The weights are the softmax of
    gamma * (S - beta * mean(S)), S the cosine similarities; entries below 0 are masked out.

    mean(S) is taken per window, as the squared norm of the mean unit feature, so a result does not depend on its
    batch. A patch always attends to itself, so flat windows stay finite.
    dtype: of the similarity product. Normalisation, mean and softmax are float32.
    """
    unit = F.normalize(features.float(), dim=-1)  # (B, N, C)
    mean_similarity = unit.double().mean(dim=1).square().sum(dim=-1).float()  # (B,)
    unit = unit.to(dtype)
    similarity = (unit @ unit.transpose(1, 2)).float()  # (B, N, N)
    logits = gamma * (similarity - beta * mean_similarity[:, None, None])
    masked = logits < 0
    masked.diagonal(dim1=1, dim2=2).fill_(False)
    return logits.masked_fill_(masked, -math.inf).softmax(dim=-1).to(dtype)


def mix_by_proxy(weights: Tensor, values: Tensor) -> Tensor:
    """Mix values (B, N, D) by the weights (B, N, N) of `proxy_attention`, in their dtype: (B, N, D) float32."""
    return (weights @ values.to(weights.dtype)).float()


def resize_values(values: Tensor, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Tensor:
    """Resize CLIP's patch values to the proxy's grid, bilinearly without antialiasing.

    values: (B, from_h * from_w, D). Returns (B, to_h * to_w, D).
    """
    if from_hw == to_hw:
        return values
    grid = values.transpose(1, 2).reshape(values.shape[0], -1, *from_hw)
    return F.interpolate(grid, size=to_hw, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class Heads:
    """The projected tokens of CLIP's last block.

    q, k, v: (B, heads, T, d), after the block's own norms and rotation. T = num_prefix + h * w: the tokens without
    a patch (CLS, registers) come first. length: (B,) mean length of the tokens before the projection.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    grid_hw: tuple[int, int]
    num_prefix: int
    length: Tensor


Attention: TypeAlias = Callable[[Heads], Tensor]


def query_key(heads: Heads) -> Tensor:
    """CLIP itself: softmax(q k^T / sqrt d)."""
    return _scaled(heads.q, heads.k).softmax(dim=-1)


def query_query(heads: Heads) -> Tensor:
    """ClearCLIP (2407.12442): softmax(q q^T / sqrt d)."""
    return _scaled(heads.q, heads.q).softmax(dim=-1)


def key_key(heads: Heads) -> Tensor:
    """NACLIP (2404.08181) without its neighbourhood: softmax(k k^T / sqrt d)."""
    return _scaled(heads.k, heads.k).softmax(dim=-1)


def correlative(heads: Heads) -> Tensor:
    """SCLIP (2312.01597): softmax(q q^T / sqrt d) + softmax(k k^T / sqrt d), a sum: rows add up to 2."""
    return query_query(heads) + key_key(heads)


def neighbourhood(heads: Heads, gaussian_std: float) -> Tensor:
    """NACLIP (2404.08181): softmax(k k^T / sqrt d + G), G a Gaussian of the distance between patches."""
    return (_scaled(heads.k, heads.k) + _gaussian(heads, gaussian_std).to(heads.k)).softmax(dim=-1)


def neighbourhood_only(heads: Heads, gaussian_std: float) -> Tensor:
    """NACLIP's ablation: the Gaussian alone, scaled by the mean of |q| |k| / sqrt d over heads and tokens."""
    q, k = heads.q, heads.k
    size = q.norm(dim=-1)[..., :, None] * k.norm(dim=-1)[..., None, :] / math.sqrt(q.shape[-1])
    gaussian = _gaussian(heads, gaussian_std).to(k)
    weights = (gaussian * size.mean(dim=(-3, -2, -1), keepdim=True)).softmax(dim=-1)
    return weights.expand(*q.shape[:-1], -1)


def self_self(heads: Heads, iterations: int = 1) -> Tensor:
    """GEM (2312.00878, sec. 3): the mean of the self-self attentions of q, k and v, in the last block.

    Each of q, k and v is normalised and then `iterations` times replaced by its own self-self mixture, normalised
    again. It then gives softmax(x x^T / tau), tau = sqrt d / mean length of the block's tokens. The paper runs this
    in several last blocks; here, as in its successors' comparisons, it runs in the last one only.
    """
    sharpness = (heads.length / math.sqrt(heads.q.shape[-1]))[:, None, None, None]

    def attention(x: Tensor) -> Tensor:
        return (sharpness * (x @ x.transpose(-2, -1))).softmax(dim=-1)

    weights = []
    for x in (heads.q, heads.k, heads.v):
        x = F.normalize(x, dim=-1)
        for _ in range(iterations):
            x = F.normalize(attention(x) @ x, dim=-1)
        weights.append(attention(x))
    return torch.stack(weights).mean(dim=0)


def identity(heads: Heads) -> Tensor:
    """MaskCLIP (2112.01071): each patch keeps its own value."""
    return torch.eye(heads.q.shape[-2], dtype=heads.q.dtype, device=heads.q.device).expand(*heads.q.shape[:-1], -1)


# By the names of `recipes.methods.METHODS`, without those that need a proxy.
ATTENTION: dict[str, Callable[..., Tensor]] = {
    "clip": query_key,
    "maskclip": identity,
    "sclip": correlative,
    "clearclip": query_query,
    "gem": self_self,
    "naclip": neighbourhood,
    "naclip-kk": key_key,
    "naclip-nonly": neighbourhood_only,
}


def own_attention(config: ModelConfig) -> Attention:
    """The attention function of a method that needs no proxy, with its settings."""
    attention = ATTENTION[config.method]
    if attention in (neighbourhood, neighbourhood_only):
        return partial(attention, gaussian_std=config.gaussian_std)
    return attention


def _scaled(a: Tensor, b: Tensor) -> Tensor:
    return a @ b.transpose(-2, -1) / math.sqrt(a.shape[-1])


def _gaussian(heads: Heads, std: float) -> Tensor:
    """(T, T): exp(-distance^2 / (2 std^2)) between patches, 0 in the rows and columns of prefix tokens."""
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in heads.grid_hw), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], dim=1)  # (N, 2)
    squared = (places[:, None] - places[None]).square().sum(dim=-1)
    return F.pad((-squared / (2 * std**2)).exp(), (heads.num_prefix, 0, heads.num_prefix, 0))
