"""Small CLIP-RCs: of the golden cases, and seeded ones as files."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tiny import randomise

from proxyclip.models.cliprc.checkpoint import ClipRC, Networks
from proxyclip.models.cliprc.description import Description
from proxyclip.models.cliprc.encoder import Tower
from proxyclip.models.cliprc.sizes import Sizes

SMALL = Sizes(width=64, embed=16, blocks=2, patch=16, grid=4, prompts=3, deep=1, regions=2)


def small_cliprc(classes: list[str], seen: list[int], seed: int = 0, **changes: object) -> ClipRC:
    """With random weights: logits differ enough for several classes to win."""
    networks = Networks(SMALL, Tower(), recovery=True).eval()
    randomise(networks, seed)
    rows = torch.randn(len(classes), SMALL.embed, generator=torch.Generator().manual_seed(seed))
    text = torch.nn.functional.normalize(rows, dim=1)
    return ClipRC(networks, text, Description(tuple(classes), tuple(seen), **changes))


def save_released(model: ClipRC, folder: Path) -> Path:
    """A folder with a checkpoint as the release writes it."""
    folder.mkdir(parents=True)
    state = dict(model.networks.named_state())
    for layer in {name.rsplit(".norm2.", 1)[0] for name in state if ".norm2." in name}:
        state[f"{layer}.norm1.weight"] = torch.ones(SMALL.embed)
        state[f"{layer}.self_attn.in_proj_bias"] = torch.ones(3 * SMALL.embed)
    state["text_encoder.ln_final.weight"] = torch.ones(5)
    torch.save({"meta": {"iter": 40000, "epoch": 3}, "state_dict": state}, folder / "iter_40000.pth")
    save_file({"embeddings": model.text.half()}, folder / "text.safetensors")
    about = {"classes": list(model.description.classes), "seen": list(model.description.seen)}
    (folder / "cliprc.json").write_text(json.dumps(about))
    return folder
