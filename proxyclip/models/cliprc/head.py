"""CLIP-RC's head: region-wise queries of every class and the patches look at each other; their products are logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from proxyclip.models.cliprc.encoder import Tokens
from proxyclip.models.cliprc.sizes import HEAD_HEADS, HEAD_LAYERS

DROPOUT = 0.1


@dataclass(frozen=True)
class HeadOutput:
    """logits: (B, C, h, w), of patches. queries: (B, RC, 2D), before any layer. q: (B, RC, D) and m: (B, N, D), after
    the last one, for the recovery decoder."""

    logits: Tensor
    queries: Tensor
    q: Tensor
    m: Tensor


class Head(nn.Module):
    """Tokens and text to logits. The names of the parameters are those of the release.

    dim: D. recovery: with the decoder that only training uses.
    """

    def __init__(self, dim: int, *, recovery: bool = False) -> None:
        super().__init__()
        self.q_proj = nn.Linear(2 * dim, dim)
        self.lateral_proj = nn.Linear(3 * dim, dim)
        self.decoder_q, self.decoder_v = _Stack(dim), _Stack(dim)
        if recovery:
            self.recovery_decoder = Recovery(dim)

    def forward(self, tokens: Tokens, text: Tensor) -> HeadOutput:
        """text: (C, D), unit rows. The classes are not independent of each other: patches look at all their queries."""
        num_classes = len(text)
        queries = region_queries(tokens, text)
        q = self.q_proj(queries)
        grid_hw = tokens.patches.shape[2:]
        regions = F.interpolate(tokens.regions, size=grid_hw, mode="bilinear", align_corners=False)
        patches = tokens.patches.flatten(2).transpose(1, 2)
        everywhere = tokens.cls[:, None].expand_as(patches)
        m = self.lateral_proj(torch.cat([regions.flatten(2).transpose(1, 2), everywhere, patches], dim=-1))
        for to_q, to_m in zip(self.decoder_q.layers, self.decoder_v.layers, strict=True):
            q, m = to_q(q, m), to_m(m, q)
        class_queries = q.unflatten(1, (-1, num_classes)).mean(dim=1)  # products are linear: the mean may come first
        logits = (class_queries @ m.transpose(1, 2)).unflatten(2, grid_hw)
        return HeadOutput(logits, queries, q, m)


def region_queries(tokens: Tokens, text: Tensor) -> Tensor:
    """(B, RC, 2D), region after region: the region's and the window's vector times the text, and the text."""
    places = tokens.regions.flatten(2).transpose(1, 2) + tokens.cls[:, None]
    mixed = places[:, :, None] * text
    return torch.cat([mixed, text.expand_as(mixed)], dim=-1).flatten(1, 2)


class Recovery(nn.Module):
    """Rebuilds what the head started from: a loss on it keeps the head near CLIP's space."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear_q_in, self.linear_k_in = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.linear_q_out, self.linear_k_out = nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.decouple_q, self.decouple_v = nn.ModuleList([_Layer(dim)]), nn.ModuleList([_Layer(dim)])

    def forward(self, found: HeadOutput) -> tuple[Tensor, Tensor]:
        """The queries (B, RC, 2D) and the patch vectors (B, N, D), as far as they can be told from q and m."""
        q, m = self.linear_q_in(found.q), self.linear_k_in(found.m)
        q, m = self.decouple_q[0](q, m), self.decouple_v[0](m, q)
        return self.linear_q_out(q), self.linear_k_out(m)


class _Stack(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(dim) for _ in range(HEAD_LAYERS))


class _Layer(nn.Module):
    """One side looks at the other. Norms come last; there is no self-attention."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.multihead_attn = _Attention(dim)
        self.linear1, self.linear2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        x = self.norm2(x + self.dropout(self.multihead_attn(x, other)))
        wide = self.dropout(F.relu(self.linear1(x)))
        return self.norm3(x + self.dropout(self.linear2(wide)))


class _Attention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(2, (HEAD_HEADS, -1)).transpose(1, 2) for part in (self.q(x), self.k(other), self.v(other))
        )
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=DROPOUT if self.training else 0.0)
        return self.proj(mixed.transpose(1, 2).flatten(2))
