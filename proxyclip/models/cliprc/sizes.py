"""The sizes of a CLIP-RC, and the names and shapes of its tensors. Without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

BACKBONE, HEAD, TEXT_ENCODER = "backbone.", "decode_head.", "text_encoder."
HEAD_HEADS = 8
HEAD_LAYERS = 3

Shapes = dict[str, tuple[int, ...]]

# Tensors that the release writes and never uses, in each layer of the head.
_UNUSED = ("self_attn.in_proj_weight", "self_attn.in_proj_bias", "self_attn.out_proj.", "norm1.")

_STACKS = tuple(f"{side}.layers.{k}" for k in range(HEAD_LAYERS) for side in ("decoder_q", "decoder_v"))
_RECOVERY = ("recovery_decoder.decouple_q.0", "recovery_decoder.decouple_v.0")

UNUSED = tuple(f"{HEAD}{layer}.{name}" for layer in (*_STACKS, *_RECOVERY) for name in _UNUSED)


@dataclass(frozen=True)
class Sizes:
    """width, blocks, patch, embed: of the image tower. grid: patches on a side of the windows that it was trained on.

    prompts: prompt tokens. deep: blocks, from the second one on, that get prompts of their own. regions: region-level
    bridges on a side. norm_first: whether the tower has a norm before its blocks.
    """

    width: int
    embed: int
    blocks: int
    patch: int
    grid: int
    prompts: int
    deep: int
    regions: int = 4
    norm_first: bool = True

    def __post_init__(self) -> None:
        if self.embed % HEAD_HEADS:
            raise ValueError(f"The text space has {self.embed} numbers; the head needs a multiple of {HEAD_HEADS}.")
        if not 1 <= self.regions <= self.grid:
            raise ValueError(f"{self.regions} regions on a side need at least as many patches, not {self.grid}.")
        if not 0 <= self.deep < self.blocks:
            raise ValueError(f"Prompts for {self.deep} further blocks do not fit a tower of {self.blocks} blocks.")

    @property
    def image_px(self) -> int:
        """Side of the windows that it was trained on."""
        return self.grid * self.patch


def sizes_of(shapes: Mapping[str, tuple[int, ...]]) -> Sizes:
    """The sizes of a checkpoint, from its tensors. Raises ValueError if it is not one of CLIP-RC."""
    ranks = {"conv1.weight": 4, "proj": 2, "positional_embedding": 2, "region_level_bridge": 2}
    ranks |= {"prompt_embeddings": 3, "deep_prompt_embeddings": 3}
    found = {}
    for name in ranks:
        if BACKBONE + name not in shapes:
            raise ValueError(f"it has no tensor {BACKBONE}{name}, so it is not a checkpoint of CLIP-RC")
        found[name] = tuple(shapes[BACKBONE + name])
    blocks = {name.split(".")[3] for name in shapes if name.startswith(f"{BACKBONE}transformer.resblocks.")}
    for name, shape in found.items():
        if len(shape) != ranks[name]:
            raise ValueError(f"{BACKBONE}{name} has shape {shape}; it needs {ranks[name]} dimensions")
    return Sizes(
        width=found["conv1.weight"][0],
        embed=found["proj"][1],
        blocks=len(blocks),
        patch=found["conv1.weight"][2],
        grid=math.isqrt(max(found["positional_embedding"][0] - 1, 0)),
        prompts=found["prompt_embeddings"][1],
        deep=found["deep_prompt_embeddings"][0],
        regions=math.isqrt(found["region_level_bridge"][0]),
        norm_first=f"{BACKBONE}ln_pre.weight" in shapes,
    )


def tensor_shapes(sizes: Sizes, *, recovery: bool = True) -> Shapes:
    """The shape of every tensor that is used, by its name. recovery: with the decoder that only training uses."""
    shapes = {f"{BACKBONE}{name}": shape for name, shape in _backbone(sizes).items()}
    return shapes | {f"{HEAD}{name}": shape for name, shape in _head(sizes.embed, recovery).items()}


def _backbone(sizes: Sizes) -> Shapes:
    width = sizes.width
    shapes: Shapes = {
        "class_embedding": (width,),
        "positional_embedding": (sizes.grid**2 + 1, width),
        "region_level_bridge": (sizes.regions**2, width),
        "prompt_embeddings": (1, sizes.prompts, width),
        "deep_prompt_embeddings": (sizes.deep, sizes.prompts, width),
        "proj": (width, sizes.embed),
        "conv1.weight": (width, 3, sizes.patch, sizes.patch),
        **_linear("prompt_proj", width, width),
    }
    for norm in ("ln_pre",) * sizes.norm_first + ("ln_post", "prompt_norm"):
        shapes |= _norm(norm, width)
    for index in range(sizes.blocks):
        block = f"transformer.resblocks.{index}"
        shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
        shapes |= _linear(f"{block}.attn.out_proj", width, width)
        shapes |= _norm(f"{block}.ln_1", width) | _norm(f"{block}.ln_2", width)
        shapes |= _linear(f"{block}.mlp.c_fc", width, 4 * width) | _linear(f"{block}.mlp.c_proj", 4 * width, width)
    return shapes


def _head(dim: int, recovery: bool) -> Shapes:
    shapes = _linear("lateral_proj", 3 * dim, dim) | _linear("q_proj", 2 * dim, dim)
    for layer in (*_STACKS, *(_RECOVERY if recovery else ())):
        for part in ("q", "k", "v", "proj"):
            shapes |= _linear(f"{layer}.multihead_attn.{part}", dim, dim)
        shapes |= _linear(f"{layer}.linear1", dim, 4 * dim) | _linear(f"{layer}.linear2", 4 * dim, dim)
        shapes |= _norm(f"{layer}.norm2", dim) | _norm(f"{layer}.norm3", dim)
    if recovery:
        for name in ("linear_q_in", "linear_k_in", "linear_k_out"):
            shapes |= _linear(f"recovery_decoder.{name}", dim, dim)
        shapes |= _linear("recovery_decoder.linear_q_out", dim, 2 * dim)
    return shapes


def _linear(name: str, wide: int, to: int) -> Shapes:
    return {f"{name}.weight": (to, wide), f"{name}.bias": (to,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def misfits(shapes: Mapping[str, tuple[int, ...]], *, recovery: bool) -> list[str]:
    """What is wrong with the tensors of a checkpoint: missing ones, other shapes, unknown names.

    recovery: whether the decoder that only training uses must be there. Raises ValueError as `sizes_of` does.
    """
    sizes = sizes_of(shapes)
    wanted, known = tensor_shapes(sizes, recovery=recovery), tensor_shapes(sizes)
    wrong = [f"{name}: missing" for name in wanted if name not in shapes]
    for name, shape in shapes.items():
        if name in known:
            if tuple(shape) != known[name]:
                wrong.append(f"{name}: shape {tuple(shape)} instead of {known[name]}")
        elif not name.startswith((TEXT_ENCODER, *UNUSED)):
            wrong.append(f"{name}: not a tensor of CLIP-RC")
    return wrong
