"""CLIP with a timm transformer as image tower: SigLIP, EVA, PE-Core, MobileCLIP's ViT."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import timm
import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from timm.layers import PatchEmbed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from proxyclip.models.attention import Attention, Heads
from proxyclip.models.kernels.torch_calls import TorchCalls
from proxyclip.models.networks.clip import ClipEncoder, Tokenizer

Mix: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


class TimmClipEncoder(ClipEncoder):
    """A CLIP with a timm image tower, split before its last block.

    The last block runs as timm wrote it, with its own projections, norms and rotary positions; only the attention
    inside it is replaced. Queries and keys are those that the block compares, after its norms and rotation.

    A patch goes to the text space through the final norm, the pooling and the projection, as an image does whose
    tokens all equal that patch. So a uniform image's pooled feature equals the dense features of its patches. For
    towers that pool by attention (SigLIP, PE-Core) this is the value path of the pooling head with its residual MLP;
    for towers that read CLS or the average, it is the norm and the projection, as in native towers.

    Positions are interpolated as in timm. If the patch does not divide a side, the remainder is left out.
    Raises ValueError for towers whose last block is not attention over a patch grid.
    """

    def _adopt(self, visual: Any) -> None:
        visual.trunk = _dynamic(_checked_trunk(visual))

    @property
    def embed_dim(self) -> int:
        """Width of text embeddings and dense features."""
        patch = torch.zeros(1, 1, self._trunk.embed_dim, device=next(self.parameters()).device)
        return int(self.to_text_space(patch).shape[-1])

    def set_trunk_dtype(self, dtype: torch.dtype) -> None:
        """Run all but the last block in `dtype`; the last block, the pooling and the projection stay float32."""
        kept = [self._trunk.blocks[-1], self._trunk.norm, self._trunk.fc_norm, self._trunk.head]
        kept.append(getattr(self._trunk, "attn_pool", None))
        late = {id(parameter) for part in kept if part is not None for parameter in part.parameters()}
        for parameter in self._trunk.parameters():
            if id(parameter) not in late:
                parameter.data = parameter.data.to(dtype)

    def trunk(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """All blocks but the last, as `ClipEncoder.trunk`, with the prefix tokens that the tower has."""
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

    def attend(
        self, tokens: Tensor, grid_hw: tuple[int, int], attention: Attention, *, residual: bool = False
    ) -> Tensor:
        """Run the last block with another attention; as `ClipEncoder.attend`."""
        prefix = self._trunk.num_prefix_tokens
        length = self._into_attention(tokens).norm(dim=-1).mean(dim=-1)

        def mix(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attention(Heads(q, k, v, grid_hw, prefix, length)) @ v

        if not residual:
            return self.to_text_space(self._run_attention(tokens, grid_hw, mix)[:, prefix:])
        with _attention_replaced(mix):
            tokens = self._last_block(tokens, **self._rope(grid_hw))
        return self.to_text_space(tokens[:, prefix:])

    def project(self, mixed: Tensor) -> Tensor:
        """Mixed values (B, N, D) to dense features (B, N, E), unit length: no residual, no MLP."""
        attn = self._last_block.attn
        return self.to_text_space(self._out_of_attention(attn.proj(attn.norm(mixed))))

    @property
    def _trunk(self) -> Any:
        return self.model.visual.trunk

    @property
    def _last_block(self) -> Any:
        return self._trunk.blocks[-1]

    @property
    def _norms_after(self) -> bool:
        """Whether the block normalises after its attention, not before (EVA02-E)."""
        return "PostNorm" in type(self._last_block).__name__

    def _into_attention(self, tokens: Tensor) -> Tensor:
        return tokens if self._norms_after else self._last_block.norm1(tokens)

    def _out_of_attention(self, mixed: Tensor) -> Tensor:
        return self._last_block.norm1(mixed) if self._norms_after else mixed

    def _run_attention(self, tokens: Tensor, grid_hw: tuple[int, int], mix: Mix) -> Tensor:
        """The attention part of the last block with its mixing replaced: no residual, no MLP."""
        with _attention_replaced(mix):
            mixed = self._last_block.attn(self._into_attention(tokens), **self._rope(grid_hw))
        return self._out_of_attention(mixed)

    def _rope(self, grid_hw: tuple[int, int]) -> dict[str, Tensor]:
        rope = getattr(self._trunk, "rope", None)
        return {} if rope is None else {"rope": rope.get_embed(shape=grid_hw)}

    def to_text_space(self, tokens: Tensor) -> Tensor:
        """Tokens of the last block (B, N, D) to dense features (B, N, E), unit length; each by itself."""
        trunk, visual = self._trunk, self.model.visual
        alike = trunk.norm(tokens).flatten(0, 1)[:, None].expand(-1, trunk.num_prefix_tokens + 1, -1)  # (B * N, 1.., D)
        return F.normalize(visual.head(trunk.forward_head(alike)), dim=-1).unflatten(0, tokens.shape[:2])


def _attention_replaced(mix: Mix) -> TorchCalls:
    """Inside it, `mix(q, k, v)` replaces softmax(q k^T / sqrt d) v, which timm's blocks get from torch."""

    def attention(q: Tensor, k: Tensor, v: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return mix(q, k, v)

    return TorchCalls({F.scaled_dot_product_attention: attention})


def _checked_trunk(visual: nn.Module | None) -> VisionTransformer | Eva:
    trunk: Any = visual.trunk if isinstance(visual, TimmModel) else None
    if not isinstance(trunk, VisionTransformer | Eva):
        problem = f"{type(trunk or visual).__name__}, which has no last block of attention over patches"
    elif type(trunk.patch_embed) is not PatchEmbed or getattr(trunk, "rope_mixed", False):
        problem = f"{type(trunk).__name__}, which embeds patches by a {type(trunk.patch_embed).__name__}"
    elif getattr(trunk.blocks[-1].attn, "gate", None) is not None:
        problem = f"{type(trunk).__name__}, whose last block ({type(trunk.blocks[-1].attn).__name__}) gates its values"
    else:
        return trunk
    raise ValueError(
        f"CLIP's image tower is a {problem}; use a CLIP with open_clip's own vision transformer, or timm's ViT or EVA."
    )


def _dynamic(trunk: Any) -> nn.Module:
    """The same network, built for images of any size."""
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
    """The encoder for an open_clip model. Raises ValueError with the reason if there is none."""
    encoder = TimmClipEncoder if isinstance(getattr(model, "visual", None), TimmModel) else ClipEncoder
    return encoder(model, tokenizer, mean, std)
