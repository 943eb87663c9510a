"""Networks of CLIP-RC before training: a CLIP's image tower, new prompts and a new head; and the text of classes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from proxyclip.config import ModelConfig
from proxyclip.models.cliprc.checkpoint import Networks
from proxyclip.models.cliprc.encoder import Tower, resized_positions
from proxyclip.models.cliprc.sizes import Sizes
from proxyclip.models.networks.clip import ClipEncoder
from proxyclip.models.networks.weights import load_clip
from proxyclip.vocabulary.names import Vocabulary

# The prompts of the release's tables of text.
TEMPLATES = {
    "voc": ("a photo of a {}",),
    "coco-stuff": (
        *("a photo of a {}.", "This is a photo of a {}.", "a photo of a small {}.", "This is a photo of a small {}."),
        *("a photo of a medium {}.", "This is a photo of a medium {}.", "a photo of a large {}."),
        *("This is a photo of a large {}.", "a {} in the scene.", "a photo of a {} in the scene."),
        *("There is a {} in the scene.", "There is the {} in the scene.", "This is a {} in the scene."),
        *("This is the {} in the scene.", "This is one {} in the scene."),
    ),
}


def open_clip_tower(config: ModelConfig) -> ClipEncoder:
    """The CLIP whose tower is trained. Raises ValueError for another kind of tower than CLIP's own."""
    clip = load_clip(config)
    if not hasattr(clip.model.visual, "transformer"):
        raise ValueError(f"--clip {config.clip}: CLIP-RC needs CLIP's own vision transformer, for instance ViT-B-16.")
    return clip


def new_networks(clip: ClipEncoder, image_px: int, prompts: int, seed: int) -> Networks:
    """As the release begins: positions for windows of `image_px`, bridges that are all equal, a random head."""
    visual = clip.model.visual
    state = {name: value.detach().float() for name, value in visual.state_dict().items()}
    width, patch = state["conv1.weight"].shape[0], state["conv1.weight"].shape[2]
    blocks, grid = len(visual.transformer.resblocks), image_px // patch
    sizes = Sizes(
        width,
        state["proj"].shape[1],
        blocks,
        patch,
        grid,
        prompts,
        blocks - 1,
        regions=min(4, grid),
        norm_first="ln_pre.weight" in state,
    )
    block = visual.transformer.resblocks[0]
    tower = Tower(
        width // block.attn.num_heads, type(block.mlp.gelu).__name__ == "QuickGELU", getattr(block.ln_1, "eps", 1e-5)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = Networks(sizes, tower, recovery=True)
        _take(networks, state)
        _draw(networks, sizes)
    return networks


def _take(networks: Networks, state: Mapping[str, Tensor]) -> None:
    encoder, positions = networks.encoder, state["positional_embedding"]
    grid = resized_positions(positions[1:], (networks.sizes.grid, networks.sizes.grid))
    first = state["class_embedding"] + positions[0]
    made = {
        **state,
        "positional_embedding": torch.cat([positions[:1], grid]),
        "region_level_bridge": first.expand(networks.sizes.regions**2, -1),
    }
    with torch.no_grad():
        for name, value in encoder.state_dict().items():
            if "prompt" not in name:
                value.copy_(made[name])


def _draw(networks: Networks, sizes: Sizes) -> None:
    encoder, head = networks.encoder, networks.head
    bound = math.sqrt(6 / (3 * sizes.patch**2 + sizes.width))
    nn.init.uniform_(encoder.prompt_embeddings, -bound, bound)
    nn.init.uniform_(encoder.deep_prompt_embeddings, -bound, bound)
    nn.init.normal_(encoder.prompt_proj.weight, std=math.sqrt(2 / sizes.width))
    for stack in (head.decoder_q, head.decoder_v):  # the layers of a stack begin as copies of each other
        for layer in stack.layers[1:]:
            layer.load_state_dict(stack.layers[0].state_dict())
    for module in head.recovery_decoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)


def text_of(vocabulary: Vocabulary, clip: ClipEncoder, templates: str) -> Tensor:
    """(C, D), unit rows. The vocabulary's own embeddings, or the mean over templates; the mean over a class's queries.

    The release has one query for each class.
    """
    if vocabulary.embeddings is not None:
        rows = torch.from_numpy(np.array(vocabulary.embeddings, np.float32))
    else:
        with torch.inference_mode():
            rows = torch.stack(
                [
                    F.normalize(clip.embed_text([each.format(query) for each in TEMPLATES[templates]]).mean(0), dim=0)
                    for query in vocabulary.queries
                ]
            ).cpu()
    owner = torch.from_numpy(vocabulary.query_class)
    total = torch.zeros(vocabulary.num_classes, rows.shape[1]).index_add_(0, owner, rows)
    return F.normalize(total, dim=1)
