"""CLIPs whose image tower is a timm transformer: SigLIP, EVA, PE-Core, MobileCLIP's ViT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from timm.layers import PatchEmbed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from proxyclip.models.attention import Heads, Method
from proxyclip.models.networks.clip import ClipEncoder, Tokenizer


class TimmClipEncoder(ClipEncoder):
    """A CLIP with a timm image tower, taken apart before its last block.

    The block itself runs as timm wrote it, whatever its projections, norms and rotary positions are; only its attention
    weights are replaced. Queries and keys are what the block compares, so after their norms and rotation.

    A patch comes to the text space as the whole image would if all its tokens were that patch: through the final
    norm, the pooling and the projection. For towers that pool by attention (SigLIP, PE-Core) that is the pooling
    head's value path with its residual MLP, since attention over equal tokens gives their value: the one reading
    under which the pooled feature of a uniform image and the dense features of its patches agree. For towers that
    read their class token or average, it is the norm and the projection, as in native towers.

    Positions are interpolated as timm does. Sides that the patch does not divide lose their remainder.
    Raises ValueError for towers without a last block of attention over a patch grid.
    """

    def _take(self, visual: Any) -> None:
        visual.trunk = _dynamic(_checked_trunk(visual))

    @property
    def embed_dim(self) -> int:
        """Width of the space that text and dense features share."""
        patch = torch.zeros(1, 1, self._trunk.embed_dim, device=next(self.parameters()).device)
        return int(self._to_text_space(patch).shape[-1])

    def set_trunk_dtype(self, dtype: torch.dtype) -> None:
        """Run all but the last block in `dtype`; the last block, the pooling and the projection stay float32."""
        kept = [self._trunk.blocks[-1], self._trunk.norm, self._trunk.fc_norm, self._trunk.head]
        kept.append(getattr(self._trunk, "attn_pool", None))
        late = {id(parameter) for part in kept if part is not None for parameter in part.parameters()}
        for parameter in self._trunk.parameters():
            if id(parameter) not in late:
                parameter.data = parameter.data.to(dtype)

    def trunk(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """All blocks but the last; as `ClipEncoder.trunk`, with as many tokens before the patches as the tower has."""
        trunk = self._trunk
        height, width = trunk.patch_embed.patch_size
        grid_hw = (pixels.shape[2] // height, pixels.shape[3] // width)
        pixels = pixels[:, :, : grid_hw[0] * height, : grid_hw[1] * width]
        (found,) = trunk.forward_intermediates(
            pixels.to(trunk.patch_embed.proj.weight.dtype),
            indices=[len(trunk.blocks) - 2],
            return_prefix_tokens=trunk.num_prefix_tokens > 0,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        tokens = torch.cat([found[1], found[0]], dim=1) if trunk.num_prefix_tokens else found
        return tokens.float(), grid_hw

    def values(self, tokens: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """The last block's value of every patch: (B, N, D), heads concatenated."""
        seen: list[Tensor] = []

        def keep(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            seen.append(v)
            return v

        self._run_attention(tokens, grid_hw, keep)
        return seen[0].transpose(1, 2).flatten(2)[:, self._trunk.num_prefix_tokens :]

    def attend(self, tokens: Tensor, grid_hw: tuple[int, int], method: Method) -> Tensor:
        """Run the last block with the attention of `method`; as `ClipEncoder.attend`."""
        if method.attention is None:
            raise AssertionError("a proxy's attention is applied by the segmenter")
        attention, block, prefix = method.attention, self._last_block, self._trunk.num_prefix_tokens
        length = self._into_attention(tokens).norm(dim=-1).mean(dim=-1)

        def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attention(Heads(q, k, v, grid_hw, prefix, length)) @ v

        if not method.residual:
            return self._to_text_space(self._run_attention(tokens, grid_hw, mix)[:, prefix:])
        with _Attention(mix):
            tokens = block(tokens, **self._rope(grid_hw))
        return self._to_text_space(tokens[:, prefix:])

    def project(self, mixed: Tensor) -> Tensor:
        """Mixed values (B, N, D) to dense features (B, N, E), unit length: no residual, no MLP."""
        attn = self._last_block.attn
        return self._to_text_space(self._out_of_attention(attn.proj(attn.norm(mixed))))

    @property
    def _trunk(self) -> Any:
        return self.model.visual.trunk

    @property
    def _last_block(self) -> Any:
        return self._trunk.blocks[-1]

    @property
    def _norms_after(self) -> bool:
        """Whether the block's norm follows its attention (EVA02-E)."""
        return "PostNorm" in type(self._last_block).__name__

    def _into_attention(self, tokens: Tensor) -> Tensor:
        return tokens if self._norms_after else self._last_block.norm1(tokens)

    def _out_of_attention(self, mixed: Tensor) -> Tensor:
        return self._last_block.norm1(mixed) if self._norms_after else mixed

    def _run_attention(
        self, tokens: Tensor, grid_hw: tuple[int, int], mix: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """The attention part of the last block, its mixing replaced: no residual, no MLP."""
        with _Attention(mix):
            mixed = self._last_block.attn(self._into_attention(tokens), **self._rope(grid_hw))
        return self._out_of_attention(mixed)

    def _rope(self, grid_hw: tuple[int, int]) -> dict[str, Tensor]:
        rope = getattr(self._trunk, "rope", None)
        return {} if rope is None else {"rope": rope.get_embed(shape=grid_hw)}

    def _to_text_space(self, tokens: Tensor) -> Tensor:
        trunk, visual = self._trunk, self.model.visual
        alike = trunk.norm(tokens).flatten(0, 1)[:, None].expand(-1, trunk.num_prefix_tokens + 1, -1)  # (B * N, 1.., D)
        return F.normalize(visual.head(trunk.forward_head(alike)), dim=-1).unflatten(0, tokens.shape[:2])


class _Attention(TorchFunctionMode):
    """Replaces softmax(q k^T / sqrt d) v, as timm's blocks ask torch for it."""

    def __init__(self, mix: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self._mix = mix

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.scaled_dot_product_attention:
            return self._mix(*args[:3])
        return function(*args, **(kwargs or {}))


def _checked_trunk(visual: nn.Module | None) -> VisionTransformer | Eva:
    trunk: Any = visual.trunk if isinstance(visual, TimmModel) else None
    if not isinstance(trunk, VisionTransformer | Eva):
        found, misfit = type(trunk or visual).__name__, "which has no last block of attention over patches"
    elif type(trunk.patch_embed) is not PatchEmbed or getattr(trunk, "rope_mixed", False):
        found, misfit = type(trunk).__name__, f"which embeds patches by a {type(trunk.patch_embed).__name__}"
    elif getattr(trunk.blocks[-1].attn, "gate", None) is not None:
        found, misfit = type(trunk.blocks[-1].attn).__name__, "whose values are gated"
    else:
        return trunk
    raise ValueError(
        f"CLIP's image tower is a {found}, {misfit}; wanted open_clip's own vision transformer, or timm's ViT or EVA."
    )


def _dynamic(trunk: Any) -> nn.Module:
    """The same network, for images of any size."""
    if trunk.dynamic_img_size:
        return trunk
    dynamic = timm.create_model(
        trunk.pretrained_cfg["architecture"],
        num_classes=trunk.num_classes,
        global_pool=trunk.global_pool,
        img_size=trunk.patch_embed.img_size,
        depth=len(trunk.blocks),
        dynamic_img_size=True,
    )
    dynamic.load_state_dict(trunk.state_dict())
    return dynamic


def as_clip(
    model: nn.Module,
    tokenizer: Tokenizer | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ClipEncoder:
    """The encoder that fits an open_clip model; ValueError says why none does."""
    encoder = TimmClipEncoder if isinstance(getattr(model, "visual", None), TimmModel) else ClipEncoder
    return encoder(model, tokenizer, mean, std)
