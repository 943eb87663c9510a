"""The last block's attention, per method: pure tensor functions.

Weights are (B, heads, T, T) over CLIP's tokens, or (B, N, N) over the proxy's patches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor


def proxy_attention(features: Tensor, *, beta: float, gamma: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Attention weights from the similarity of a proxy's patch features (ProxyCLIP, eq. 3-5).

    features: (B, N, C), any scale. Returns (B, N, N) in `dtype`, rows summing to 1: the softmax of
    gamma * (S - beta * mean(S)) with entries below 0 masked out, S the cosine similarities.

    mean(S) is taken per window, as the squared norm of the mean unit feature, so a result does not
    depend on its batch. A patch always attends to itself, so flat windows stay finite.
    dtype: in which similarities are multiplied out; normalisation, mean and softmax are float32.
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
    """Values (B, N, D) mixed by `proxy_attention` (B, N, N), in its dtype: (B, N, D) float32."""
    return (weights @ values.to(weights.dtype)).float()


def resize_values(values: Tensor, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Tensor:
    """Bring CLIP's patch values to the proxy's grid, bilinearly without antialiasing.

    values: (B, from_h * from_w, D). Returns (B, to_h * to_w, D).
    """
    if from_hw == to_hw:
        return values
    grid = values.transpose(1, 2).reshape(values.shape[0], -1, *from_hw)
    return F.interpolate(grid, size=to_hw, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class Heads:
    """What the last block of CLIP projects its tokens to.

    q, k, v: (B, heads, T, d), as the block uses them (normalised, rotated); T = num_prefix + h * w tokens, those
    before the patches first (CLS, registers). length: (B,) mean length of the tokens that were projected.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    grid_hw: tuple[int, int]
    num_prefix: int
    length: Tensor


def _scaled(a: Tensor, b: Tensor) -> Tensor:
    return a @ b.transpose(-2, -1) / math.sqrt(a.shape[-1])


def query_key(heads: Heads) -> Tensor:
    """CLIP's own: softmax(q k^T / sqrt d)."""
    return _scaled(heads.q, heads.k).softmax(dim=-1)


def query_query(heads: Heads) -> Tensor:
    """ClearCLIP (2407.12442): softmax(q q^T / sqrt d)."""
    return _scaled(heads.q, heads.q).softmax(dim=-1)


def key_key(heads: Heads) -> Tensor:
    """NACLIP (2404.08181) without its neighbourhood: softmax(k k^T / sqrt d)."""
    return _scaled(heads.k, heads.k).softmax(dim=-1)


def correlative(heads: Heads) -> Tensor:
    """SCLIP (2312.01597): softmax(q q^T / sqrt d) + softmax(k k^T / sqrt d). A sum: rows add up to 2."""
    return query_query(heads) + key_key(heads)


def neighbourhood(heads: Heads) -> Tensor:
    """NACLIP (2404.08181): softmax(k k^T / sqrt d + G), G a Gaussian of the distance on the patch grid."""
    return (_scaled(heads.k, heads.k) + _gaussian(heads).to(heads.k)).softmax(dim=-1)


def neighbourhood_only(heads: Heads) -> Tensor:
    """NACLIP's ablation: the Gaussian alone, as large as the mean of |q| |k| / sqrt d over heads and tokens."""
    q, k = heads.q, heads.k
    size = q.norm(dim=-1)[..., :, None] * k.norm(dim=-1)[..., None, :] / math.sqrt(q.shape[-1])
    weights = (_gaussian(heads).to(k) * size.mean(dim=(-3, -2, -1), keepdim=True)).softmax(dim=-1)
    return weights.expand(*q.shape[:-1], -1)


def self_self(heads: Heads, iterations: int = 1) -> Tensor:
    """GEM (2312.00878, sec. 3): the mean of the self-self attentions of q, k and v, in the last block.

    Each of the three is scaled to unit length, replaced `iterations` times by its own self-self mixture (scaled
    again), and gives softmax(x x^T / tau) with tau = sqrt d / mean length of the block's tokens. The paper runs this
    path beside several last blocks; here, as in the comparisons of its successors, it is the last block's alone.
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


def _gaussian(heads: Heads, std: float = 5.0) -> Tensor:
    """(T, T): exp(-distance^2 / (2 std^2)) between patches, 0 for the rows and columns of CLS."""
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in heads.grid_hw), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], dim=1)  # (N, 2)
    squared = (places[:, None] - places[None]).square().sum(dim=-1)
    return F.pad((-squared / (2 * std**2)).exp(), (heads.num_prefix, 0, heads.num_prefix, 0))


@dataclass(frozen=True)
class Method:
    """What a method makes of the last block.

    attention: weights (B, heads, T, T) from the block's own queries, keys and values, or None where a proxy gives
    them. residual: whether the residual path and the MLP stay.
    """

    attention: Callable[[Heads], Tensor] | None
    residual: bool = False


METHODS: dict[str, Method] = {
    "clip": Method(query_key, residual=True),
    "maskclip": Method(identity),
    "sclip": Method(correlative, residual=True),
    "clearclip": Method(query_query),
    "gem": Method(self_self),
    "naclip": Method(neighbourhood),
    "naclip-kk": Method(key_key),
    "naclip-nonly": Method(neighbourhood_only),
    "proxyclip": Method(None),
}


def method_named(name: str, residual: bool | None = None) -> Method:
    """The method of a name, its residual path and MLP kept or dropped otherwise on request; ValueError if unknown."""
    if name not in METHODS:
        raise ValueError(f"Unknown method {name!r}; known: {', '.join(METHODS)}.")
    method = METHODS[name]
    if residual is None:
        return method
    if method.attention is None:
        raise ValueError(
            f"Method {name!r} lives on the proxy's grid, where CLIP has no residual; leave `residual` out."
        )
    return replace(method, residual=residual)
