"""CLIP through open_clip: tokens before the last block, the last block's parts, dense features, text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from proxyclip.models.attention import Heads, Method
from proxyclip.models.networks.positions import interpolate_positions

Tokenizer = Callable[[Sequence[str]], Tensor]


class ClipEncoder(nn.Module):
    """An open_clip model with its native vision transformer, taken apart before its last block.

    model: an `open_clip.model.CLIP`. mean, std: RGB in [0, 1]; the model's own where it names them.
    Raises ValueError for towers whose last block does not lead to the text space per patch.
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
        self._take(visual)
        self.model: Any = model.eval().requires_grad_(False)
        preprocess = getattr(visual, "preprocess_cfg", None) or {}
        self.mean = tuple(preprocess.get("mean", open_clip.OPENAI_DATASET_MEAN) if mean is None else mean)
        self.std = tuple(preprocess.get("std", open_clip.OPENAI_DATASET_STD) if std is None else std)
        self.tokenizer = tokenizer or open_clip.get_tokenizer("ViT-B-16", context_length=model.context_length)

    def _take(self, visual: Any) -> None:
        """Make sure of the tower; ValueError where it cannot be taken apart."""
        _require_native_tower(visual)

    @property
    def embed_dim(self) -> int:
        """Width of the space that text and dense features share."""
        return int(self.model.visual.proj.shape[1])

    def set_trunk_dtype(self, dtype: torch.dtype) -> None:
        """Run all but the last block in `dtype`; the last block and the projection stay float32."""
        visual = self.model.visual
        visual.conv1.to(dtype)
        visual.ln_pre.to(dtype)
        visual.transformer.resblocks[:-1].to(dtype)

    def trunk(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """All blocks but the last.

        pixels: (B, 3, H, W) float32, normalised with `mean` and `std`. Sides that the patch does not
        divide lose their remainder on the right and bottom. Returns tokens (B, 1 + N, D) with CLS
        first, float32, and the patch grid (h, w), N = h * w.
        """
        visual = self.model.visual
        patches = visual.conv1(pixels.to(visual.conv1.weight.dtype))  # (B, D, h, w)
        grid_hw = (patches.shape[2], patches.shape[3])
        tokens = patches.flatten(2).transpose(1, 2)  # (B, N, D)
        cls = visual.class_embedding.to(tokens.dtype).expand(tokens.shape[0], 1, -1)
        tokens = torch.cat([cls, tokens], dim=1) + self._position_embedding(grid_hw).to(tokens.dtype)
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

    def attend(self, tokens: Tensor, grid_hw: tuple[int, int], method: Method) -> Tensor:
        """Run the last block with the attention of `method` over CLIP's own tokens.

        tokens: (B, 1 + N, D) and grid_hw from `trunk`. Returns dense features (B, N, E), unit length.
        """
        if method.attention is None:
            raise AssertionError("a proxy's attention is applied by the segmenter")
        block = self._last_block
        normed = block.ln_1(tokens)
        q, k, v = _heads(block, normed)
        heads = Heads(q, k, v, grid_hw, 1, normed.norm(dim=-1).mean(dim=-1))
        mixed = method.attention(heads) @ v  # (B, heads, 1 + N, d)
        if not method.residual:
            return self.project(mixed.transpose(1, 2).flatten(2)[:, 1:])
        return self._to_text_space(_finish(block, tokens, mixed)[:, 1:])

    def project(self, mixed: Tensor) -> Tensor:
        """Mixed values (B, N, D) to dense features (B, N, E), unit length: no residual, no MLP."""
        return self._to_text_space(self._last_block.attn.out_proj(mixed))

    def embed_text(self, prompts: Sequence[str]) -> Tensor:
        """Text features of prompts, unit length: (len(prompts), E) float32."""
        tokens = self.tokenizer(list(prompts)).to(next(self.parameters()).device)
        return F.normalize(_encode_text(self.model, tokens).float(), dim=-1)

    @property
    def _last_block(self) -> ResidualAttentionBlock:
        return self.model.visual.transformer.resblocks[-1]

    def _to_text_space(self, tokens: Tensor) -> Tensor:
        visual = self.model.visual
        return F.normalize(visual.ln_post(tokens) @ visual.proj, dim=-1)

    def _position_embedding(self, grid_hw: tuple[int, int]) -> Tensor:
        stored = self.model.visual.positional_embedding
        patches = interpolate_positions(stored[1:], self.model.visual.grid_size, grid_hw, "offset")
        return torch.cat([stored[:1], patches])


def _encode_text(model: Any, tokens: Tensor) -> Tensor:
    """Text features of tokens (B, T), without the padding behind the longest prompt where nothing looks back at it."""
    if not isinstance(model, CLIP) or model.text_pool_type != "argmax" or model.attn_mask is None:
        features: Tensor = model.encode_text(tokens)
        return features
    ends = tokens.argmax(dim=-1)  # the end of a text has the largest token
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
    """A block from its mixed values (B, heads, T, d) on: projection, residual paths, MLP."""
    tokens = tokens + block.ls_1(block.attn.out_proj(mixed.transpose(1, 2).flatten(2)))
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def _require_native_tower(visual: nn.Module | None) -> None:
    wanted = "wanted an open_clip model whose image tower is its native VisionTransformer"
    if not isinstance(visual, VisionTransformer):
        raise ValueError(f"CLIP's image tower is a {type(visual).__name__}; {wanted} (not a ResNet or timm tower).")
    if visual.attn_pool is not None:
        raise ValueError(f"CLIP's image tower pools by attention, so patches have no text feature; {wanted}.")
    block = visual.transformer.resblocks[-1]
    if not isinstance(block, ResidualAttentionBlock):
        raise ValueError(f"CLIP's blocks are {type(block).__name__}, whose values are read differently; {wanted}.")
