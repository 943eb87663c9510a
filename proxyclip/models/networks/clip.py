"""CLIP, through open_clip: tokens before the last block, the parts of the last block, dense features, text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from proxyclip.models.attention import Attention, Heads
from proxyclip.models.networks.positions import GridCache, interpolate_positions

Tokenizer = Callable[[Sequence[str]], Tensor]


class ClipEncoder(nn.Module):
    """An open_clip model with its native vision transformer, split before its last block.

    model: an `open_clip.model.CLIP`. mean, std: RGB in [0, 1]; by default the model's own, else OpenAI's.
    Raises ValueError for image towers whose patches cannot be mapped to the text space one by one.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        visual = getattr(model, "visual", None)
        self._adopt(visual)
        self.model: Any = model.eval().requires_grad_(False)
        preprocess = getattr(visual, "preprocess_cfg", None) or {}
        self.mean = tuple(preprocess.get("mean", open_clip.OPENAI_DATASET_MEAN) if mean is None else mean)
        self.std = tuple(preprocess.get("std", open_clip.OPENAI_DATASET_STD) if std is None else std)
        self._positions = GridCache()
        self.tokenizer = tokenizer or open_clip.get_tokenizer("ViT-B-16", context_length=model.context_length)

    def _adopt(self, visual: Any) -> None:
        """Check the image tower, and change it if necessary; ValueError if it cannot be split."""
        _require_native_tower(visual)

    @property
    def embed_dim(self) -> int:
        """Width of text embeddings and dense features."""
        return int(self.model.visual.proj.shape[1])

    def set_trunk_dtype(self, dtype: torch.dtype) -> None:
        """Run all but the last block in `dtype`; the last block and the projection stay float32."""
        visual = self.model.visual
        visual.conv1.to(dtype)
        visual.ln_pre.to(dtype)
        visual.transformer.resblocks[:-1].to(dtype)

    def trunk(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """All blocks but the last.

        pixels: (B, 3, H, W) float32, normalised with `mean` and `std`. If the patch does not divide a side, the
        remainder on the right or bottom is left out. Returns tokens (B, 1 + N, D) float32, CLS first, and the patch
        grid (h, w), N = h * w.
        """
        visual = self.model.visual
        patches = visual.conv1(pixels.to(visual.conv1.weight.dtype))  # (B, D, h, w)
        grid_hw = (patches.shape[2], patches.shape[3])
        tokens = patches.flatten(2).transpose(1, 2)  # (B, N, D)
        cls = visual.class_embedding.to(tokens.dtype).expand(tokens.shape[0], 1, -1)
        tokens = torch.cat([cls, tokens], dim=1) + self.position_embedding(grid_hw).to(tokens.dtype)
        tokens = visual.ln_pre(tokens)
        for block in visual.transformer.resblocks[:-1]:
            q, k, v = _heads(block, block.ln_1(tokens))
            tokens = _finish(block, tokens, F.scaled_dot_product_attention(q, k, v))
        return tokens.float(), grid_hw

    def values(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """The last block's value of every patch.

        tokens: (B, 1 + N, D) and grid_hw from `trunk`. Returns (B, N, D), heads concatenated, CLS dropped.
        """
        block, width = self._last_block, tokens.shape[-1]
        weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
        return F.linear(block.ln_1(tokens[:, 1:]), weight[2 * width :], bias[2 * width :])

    def attend(
        self, tokens: Tensor, grid_hw: tuple[int, int], attention: Attention, *, residual: bool = False
    ) -> Tensor:
        """Run the last block with another attention.

        tokens: (B, 1 + N, D) and grid_hw from `trunk`. attention: a function of `models.attention`. residual: keep the
        block's residual path and MLP. Returns dense features (B, N, E), unit length.
        """
        block = self._last_block
        normed = block.ln_1(tokens)
        q, k, v = _heads(block, normed)
        heads = Heads(q, k, v, grid_hw, 1, normed.norm(dim=-1).mean(dim=-1))
        mixed = attention(heads) @ v  # (B, heads, 1 + N, d)
        if not residual:
            return self.project(mixed.transpose(1, 2).flatten(2)[:, 1:])
        return self.to_text_space(_finish(block, tokens, mixed)[:, 1:])

    def project(self, mixed: Tensor) -> Tensor:
        """Mixed values (B, N, D) to dense features (B, N, E), unit length: no residual, no MLP."""
        return self.to_text_space(self._last_block.attn.out_proj(mixed))

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Text features of prompts, unit length: (len(prompts), E) float32."""
        tokens = self.tokenizer(list(prompts)).to(next(self.parameters()).device)
        return F.normalize(_encode_text(self.model, tokens).float(), dim=-1)

    @property
    def _last_block(self) -> ResidualAttentionBlock:
        return self.model.visual.transformer.resblocks[-1]

    def to_text_space(self, tokens: Tensor) -> Tensor:
        """Tokens of the last block (B, N, D) to dense features (B, N, E), unit length; each by itself."""
        visual = self.model.visual
        return F.normalize(visual.ln_post(tokens) @ visual.proj, dim=-1)

    def position_embedding(self, grid_hw: tuple[int, int]) -> Tensor:
        """Positions of CLS and of the patches of a grid: (1 + N, D)."""
        stored, native_hw = self.model.visual.positional_embedding, self.model.visual.grid_size

        def resized() -> Tensor:
            return torch.cat([stored[:1], interpolate_positions(stored[1:], native_hw, grid_hw, "offset")])

        return self._positions.get(stored, grid_hw, resized)


def _encode_text(model: Any, tokens: Tensor) -> Tensor:
    """Text features of tokens (B, T). The padding behind the longest prompt is left out if nothing attends to it."""
    if not isinstance(model, CLIP) or model.text_pool_type != "argmax" or model.attn_mask is None:
        features: Tensor = model.encode_text(tokens)
        return features
    ends = tokens.argmax(dim=-1)  # the end-of-text token is the largest
    length = int(ends.max()) + 1
    x = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    x = x[torch.arange(len(x), device=x.device), ends]
    projection = model.text_projection
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Linear) else x @ projection


def _heads(block: ResidualAttentionBlock, normed: Tensor) -> Tensor:
    """Queries, keys and values of a block: (3, B, heads, T, d)."""
    projected = F.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias)
    return projected.unflatten(-1, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)


def _finish(block: ResidualAttentionBlock, tokens: Tensor, mixed: Tensor) -> Tensor:
    """The rest of a block after its values are mixed (B, heads, T, d): projection, residual paths, MLP."""
    tokens = tokens + block.ls_1(block.attn.out_proj(mixed.transpose(1, 2).flatten(2)))
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def _require_native_tower(visual: nn.Module | None) -> None:
    advice = "use an open_clip model whose image tower is open_clip's native VisionTransformer"
    if not isinstance(visual, VisionTransformer):
        raise ValueError(f"CLIP's image tower is a {type(visual).__name__}, which is not supported; {advice}.")
    if visual.attn_pool is not None:
        raise ValueError(f"CLIP's image tower pools by attention, so its patches have no text feature; {advice}.")
    block = visual.transformer.resblocks[-1]
    if not isinstance(block, ResidualAttentionBlock):
        raise ValueError(f"CLIP's blocks are {type(block).__name__}, which is not supported; {advice}.")
