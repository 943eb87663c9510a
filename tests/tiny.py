"""Tiny networks with seeded random weights, in memory and as folders; small images; a measure of memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from proxyclip.config import SegmenterConfig, WindowConfig
from proxyclip.models.features import DenseFeatures
from proxyclip.models.networks.proxy import TimmProxy
from proxyclip.models.segmenter import Segmenter
from proxyclip.models.windows import plan_windows
from proxyclip.vocabulary.names import Vocabulary

EMBED_DIM = 32
CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": EMBED_DIM,
    "vision_cfg": {"image_size": 112, "layers": 3, "width": 128, "head_width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}
PROXY_CONFIG: dict[str, Any] = {
    "img_size": 56,
    "patch_size": 8,
    "embed_dim": 48,
    "depth": 3,
    "num_heads": 3,
    "num_classes": 0,
    "global_pool": "",
}
WINDOWS = WindowConfig(short_side=112, long_side=448, crop=112, stride=56, pad_multiple=56)


def randomise(model: nn.Module, seed: int) -> None:
    """Weights large enough that another image, query or position gives another result."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in sorted(model.named_parameters()):
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim < 2:
                value.copy_(0.1 * noise + (1 if name.endswith("weight") else 0))
            elif "embed" in name:
                value.copy_(0.5 * noise)
            else:
                value.copy_(noise / value[0].numel() ** 0.5)


def tiny_clip(seed: int = 0, **changes: Any) -> nn.Module:
    """An open_clip model; `changes` replace entries of CLIP_CONFIG, or of its towers where they are dicts."""
    config = {
        key: {**value, **changes.pop(key, {})} if isinstance(value, dict) else value
        for key, value in CLIP_CONFIG.items()
    }
    model = open_clip.model.CLIP(**{**config, **changes})
    randomise(model, seed)
    return model.eval()


def tiny_vit(seed: int = 1, **changes: Any) -> nn.Module:
    """A timm vision transformer; `changes` replace entries of PROXY_CONFIG."""
    model = timm.models.VisionTransformer(**{**PROXY_CONFIG, **changes})
    randomise(model, seed)
    return model.eval()


def tiny_segmenter(config: SegmenterConfig | None = None, **kwargs: Any) -> Segmenter:
    """A ProxyCLIP of both, over windows of 112 pixels."""
    return Segmenter(tiny_clip(), TimmProxy(tiny_vit(), "offset"), config or SegmenterConfig(windows=WINDOWS), **kwargs)


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """RGB uint8 (height, width, 3): blocks of random colours, so that neighbouring patches are alike."""
    blocks = np.random.default_rng(seed).integers(0, 256, (-(-height // 20), -(-width // 20), 3), dtype=np.uint8)
    return blocks.repeat(20, axis=0).repeat(20, axis=1)[:height, :width].copy()


def random_features(height: int, width: int, seed: int = 0) -> DenseFeatures:
    """Features of an image with another direction in every patch of 8 pixels."""
    plan = plan_windows((height, width), WINDOWS)
    shape = len(plan.y.starts), len(plan.x.starts), plan.y.padded // 8, plan.x.padded // 8, EMBED_DIM
    directions = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    resized = torch.from_numpy(random_image(plan.y.resized, plan.x.resized, seed)).permute(2, 0, 1)
    return DenseFeatures(nn.functional.normalize(directions, dim=-1), plan, resized)


def random_vocabulary(num_classes: int, seed: int = 0, **changes: Any) -> Vocabulary:
    """Classes with random embeddings in the space of the tiny CLIP."""
    embeddings = np.random.default_rng(seed).standard_normal((num_classes, EMBED_DIM)).astype(np.float32)
    names = [f"class {index}" for index in range(num_classes)]
    return Vocabulary.from_names(names, **changes).with_embeddings(embeddings)


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returns."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                stored = tensor.untyped_storage().nbytes() // tensor.element_size()  # less for expanded views
                self.numel = max(self.numel, min(tensor.numel(), stored))
        return out


def save_local_models(folder: Path) -> tuple[Path, Path]:
    """Write both networks as `local-dir:` folders, and return these: CLIP's and the proxy's."""
    clip_dir, proxy_dir = Path(folder) / "clip", Path(folder) / "proxy"
    _save(clip_dir, "open_clip_config.json", {"model_cfg": CLIP_CONFIG}, tiny_clip(), "open_clip_model.safetensors")
    architecture = {"model_args": PROXY_CONFIG, "positions": "offset"}
    _save(proxy_dir, "config.json", architecture, tiny_vit(), "model.safetensors")
    return clip_dir, proxy_dir


def _save(folder: Path, config_name: str, config: dict[str, Any], model: nn.Module, weights_name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / config_name).write_text(json.dumps(config))
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / weights_name)
