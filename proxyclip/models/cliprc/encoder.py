"""CLIP-RC's image encoder: CLIP's image tower with prompts, and a bridge token for each region of the window."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from proxyclip.models.cliprc.sizes import Sizes

# Of ImageNet, in 0..255, although the tower is CLIP's.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

PROMPT_DROPOUT = 0.1


@dataclass(frozen=True)
class Tokens:
    """What the encoder says of some windows, each vector of unit length.

    cls: (B, D). patches: (B, D, h, w). regions: (B, D, g, g).
    """

    cls: Tensor
    patches: Tensor
    regions: Tensor

    def __getitem__(self, index: slice) -> Tokens:
        return Tokens(self.cls[index], self.patches[index], self.regions[index])


@dataclass(frozen=True)
class Tower:
    """What the tensors of an image tower do not say. head_width: of an attention head. eps: of its norms."""

    head_width: int = 64
    quick_gelu: bool = True
    eps: float = 1e-5


class Encoder(nn.Module):
    """Windows to `Tokens`. The names of the parameters are those of the release."""

    def __init__(self, sizes: Sizes, tower: Tower) -> None:
        super().__init__()
        width = sizes.width
        if width % tower.head_width:
            raise ValueError(f"Heads of {tower.head_width} numbers do not divide a width of {width}.")
        self.sizes = sizes
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(sizes.grid**2 + 1, width))
        self.region_level_bridge = nn.Parameter(torch.zeros(sizes.regions**2, width))
        self.prompt_embeddings = nn.Parameter(torch.zeros(1, sizes.prompts, width))
        self.deep_prompt_embeddings = nn.Parameter(torch.zeros(sizes.deep, sizes.prompts, width))
        self.proj = nn.Parameter(torch.zeros(width, sizes.embed))
        self.conv1 = nn.Conv2d(3, width, sizes.patch, sizes.patch, bias=False)
        if sizes.norm_first:
            self.ln_pre = nn.LayerNorm(width, tower.eps)
        self.ln_post = nn.LayerNorm(width, tower.eps)
        self.prompt_proj = nn.Linear(width, width)
        self.prompt_norm = nn.LayerNorm(width, 1e-6)
        self.prompt_dropout = nn.Dropout(PROMPT_DROPOUT)
        self.transformer = _Blocks(sizes.blocks, width, tower)

    def forward(self, pixels: Tensor) -> Tokens:
        """pixels: (B, 3, H, W), normalised by MEAN and STD, at least a patch wide and high.

        Windows of any size: the release only takes the one that it was trained on.
        """
        sizes, batch = self.sizes, len(pixels)
        patches = self.conv1(pixels)
        grid_hw = (patches.shape[2], patches.shape[3])
        tokens = self._placed(patches.flatten(2).transpose(1, 2), grid_hw)
        mask = attention_mask(grid_hw, sizes.prompts, sizes.regions, tokens.device)
        first, last = 1 + sizes.prompts, tokens.shape[1] + sizes.prompts
        for index, block in enumerate(self.transformer.resblocks):
            if index == 0:
                tokens = torch.cat([tokens[:, :1], self._prompts(self.prompt_embeddings[0], batch), tokens[:, 1:]], 1)
            elif index <= sizes.deep:
                prompts = self._prompts(self.deep_prompt_embeddings[index - 1], batch)
                tokens = torch.cat([tokens[:, :1], prompts, tokens[:, first:]], 1)
            tokens = block(tokens, mask)
        bridges = last - sizes.regions**2
        tokens = torch.cat([self.prompt_norm(tokens[:, :bridges]), tokens[:, bridges:]], 1)
        tokens = F.normalize((self.ln_post(tokens) @ self.proj).float(), dim=-1)
        as_maps = tokens.transpose(1, 2)
        return Tokens(
            tokens[:, 0],
            as_maps[:, :, first:bridges].unflatten(2, grid_hw),
            as_maps[:, :, bridges:].unflatten(2, (sizes.regions, sizes.regions)),
        )

    def _placed(self, patches: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """CLS, patches and bridges with their positions. The class embedding counts twice in CLS, as in the release."""
        positions = self.positional_embedding[1:]
        if grid_hw != (self.sizes.grid, self.sizes.grid):
            positions = resized_positions(positions, grid_hw)
        cls = 2 * self.class_embedding + self.positional_embedding[0]
        batch = len(patches)
        tokens = torch.cat(
            [cls.expand(batch, 1, -1), patches + positions, self.region_level_bridge.expand(batch, -1, -1)], 1
        )
        return self.ln_pre(tokens) if self.sizes.norm_first else tokens

    def _prompts(self, embeddings: Tensor, batch: int) -> Tensor:
        return self.prompt_dropout(self.prompt_proj(embeddings).expand(batch, -1, -1))


class _Blocks(nn.Module):
    def __init__(self, count: int, width: int, tower: Tower) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_Block(width, tower) for _ in range(count))


class _Block(nn.Module):
    """A block of CLIP, with a mask."""

    def __init__(self, width: int, tower: Tower) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width, tower.eps), nn.LayerNorm(width, tower.eps)
        self.attn = _Attention(width, tower.head_width)
        act = _QuickGelu() if tower.quick_gelu else nn.GELU()
        self.mlp = nn.Sequential(
            OrderedDict[str, nn.Module](c_fc=nn.Linear(width, 4 * width), act=act, c_proj=nn.Linear(4 * width, width))
        )

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.ln_1(tokens), mask)
        return tokens + self.mlp(self.ln_2(tokens))


class _Attention(nn.Module):
    """The parameters of nn.MultiheadAttention. That takes another path, with other last bits, in inference mode."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        self._head_width = head_width

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(2, (-1, self._head_width)).transpose(1, 2)
            for part in F.linear(tokens, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out


class _QuickGelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


def resized_positions(positions: Tensor, grid_hw: tuple[int, int]) -> Tensor:
    """Position embeddings of a square grid of patches, (n * n, W), for another grid: (h * w, W). Bilinear."""
    side = round(len(positions) ** 0.5)
    grid = positions.T.unflatten(1, (side, side))[None]
    return F.interpolate(grid, size=grid_hw, mode="bilinear", align_corners=False)[0].flatten(1).T


@lru_cache(maxsize=8)  # a corpus has few sizes of windows
def attention_mask(grid_hw: tuple[int, int], prompts: int, regions: int, device: torch.device) -> Tensor:
    """Which token sees which: (L, L) bool, in the order CLS, prompts, patches and bridges, row by row.

    A bridge sees itself and the patches of its region; a patch sees its bridge, and all but the other bridges. CLS and
    prompts see no bridge.
    """
    height, width = grid_hw
    rows = torch.arange(height) * regions // height
    columns = torch.arange(width) * regions // width
    region = (rows[:, None] * regions + columns).flatten()
    start = 1 + prompts
    bridges = start + height * width
    mask = torch.zeros(bridges + regions**2, bridges + regions**2, dtype=torch.bool)
    mask[:bridges, :bridges] = True
    own = region[:, None] == torch.arange(regions**2)
    mask[start:bridges, bridges:] = own
    mask[bridges:, start:bridges] = own.T
    mask[bridges:, bridges:].fill_diagonal_(True)
    return mask.to(device)
