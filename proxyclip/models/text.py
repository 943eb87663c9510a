"""Text embeddings of queries, cached on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from proxyclip.models.kernels.of_device import network_kernels
from proxyclip.models.networks.clip import ClipEncoder
from proxyclip.vocabulary.templates import IMAGENET_TEMPLATES

PROMPTS_AT_ONCE = 256


def embed_queries(clip: ClipEncoder, queries: Sequence[str]) -> Tensor:
    """One embedding per query: the mean of its prompts' unit text features, scaled to unit length.

    A query's prompts are the 80 ImageNet templates (CLIP, 2103.00020, sec. 3.1.4). Returns (Q, E) float32 on the CPU.
    """
    prompts = [template.format(query) for query in queries for template in IMAGENET_TEMPLATES]
    with torch.inference_mode(), network_kernels(next(clip.parameters()).device):
        parts = [
            clip.embed_text(prompts[start : start + PROMPTS_AT_ONCE]).cpu()
            for start in range(0, len(prompts), PROMPTS_AT_ONCE)
        ]
    return F.normalize(torch.cat(parts).unflatten(0, (len(queries), -1)).mean(dim=1), dim=-1)


def cached_embeddings(clip: ClipEncoder, queries: Sequence[str], folder: Path | None = None) -> Tensor:
    """`embed_queries`, cached in `folder` (default: proxyclip/text in the user's cache) by model and queries."""
    folder = folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "proxyclip" / "text"
    path = folder / f"{_cache_key(clip, queries)}.safetensors"
    with contextlib.suppress(OSError, SafetensorError):
        return load_file(path)["embeddings"]
    embeddings = embed_queries(clip, queries)
    with contextlib.suppress(OSError, SafetensorError):  # without a writable folder there is no cache
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        save_file({"embeddings": embeddings}, partial)
        partial.replace(path)
    return embeddings


def _cache_key(clip: ClipEncoder, queries: Sequence[str]) -> str:
    """Hash of everything that decides the embeddings: the prompts' tokens, the text tower's structure and weights."""
    digest = hashlib.sha256()
    for query in queries:
        digest.update(clip.tokenizer([template.format(query) for template in IMAGENET_TEMPLATES]).numpy().tobytes())
    for name, child in clip.model.named_children():
        if name != "visual":
            heads = [module.num_heads for module in child.modules() if hasattr(module, "num_heads")]
            digest.update(f"{name} {child!r} {heads}".encode())
    for name, value in sorted(clip.model.state_dict().items()):
        if not name.startswith("visual."):
            digest.update(f"{name}{tuple(value.shape)}".encode())
            digest.update(value.float().cpu().numpy().tobytes())
    return digest.hexdigest()
