"""Networks of full size with seeded random weights, and drawn images: measuring needs no download."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from proxyclip.config import ModelConfig
from proxyclip.demo.scenes import draw_scene
from proxyclip.models.networks.build import new_clip
from proxyclip.models.networks.clip import ClipEncoder
from proxyclip.models.networks.proxy import TimmProxy
from proxyclip.recipes.proxies import VFMS
from proxyclip.vocabulary.names import Vocabulary


def seeded_clip(name: str = "ViT-B-16-quickgelu", seed: int = 1) -> ClipEncoder:
    """A CLIP of open_clip's architecture `name`, float32 on the CPU."""
    model = new_clip(ModelConfig(clip=name))
    _fill(model, seed)
    return ClipEncoder(model)


def seeded_proxy(name: str = "dino-b8", seed: int = 2) -> TimmProxy:
    """A proxy of the architecture and position rule of `VFMS[name]`, float32 on the CPU."""
    spec = VFMS[name]
    model = timm.create_model(spec.model, pretrained=False, num_classes=0)
    _fill(model, seed)
    return TimmProxy(model, spec.positions)


def seeded_vocabulary(features: Tensor, num_queries: int, seed: int = 3) -> Vocabulary:
    """Queries that give an image many different labels: features of random patches, less their mean, with noise.

    features: (..., E) unit dense features of an image.
    """
    flat = features.reshape(-1, features.shape[-1]).float().cpu()
    generator = torch.Generator().manual_seed(seed)
    chosen = flat[torch.randint(len(flat), (num_queries,), generator=generator)] - flat.mean(dim=0)
    noise = torch.randn(chosen.shape, generator=generator) * chosen.norm(dim=1, keepdim=True) / chosen.shape[1] ** 0.5
    names = [f"class {index}" for index in range(num_queries)]
    return Vocabulary.from_names(names).with_embeddings(F.normalize(chosen + noise, dim=-1).numpy())


def drawn_images(count: int, image_hw: tuple[int, int] = (375, 500), seed: int = 0) -> list[npt.NDArray[np.uint8]]:
    """Drawn scenes, (H, W, 3) uint8 each."""
    return [draw_scene(seed + index, image_hw).image for index in range(count)]


def write_jpegs(folder: Path, count: int) -> None:
    """Drawn scenes of 500 x 375 pixels as JPEG files in a new folder."""
    folder.mkdir()
    for index, image in enumerate(drawn_images(count)):
        Image.fromarray(image).save(folder / f"{index:05d}.jpg", quality=90)


def _fill(model: nn.Module, seed: int) -> None:
    """Weights from the seed and each tensor's name. Matrices keep the length of vectors; norms are near one."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            generator = torch.Generator().manual_seed((zlib.crc32(name.encode()) + seed) % 2**31)
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim < 2:
                value.copy_(0.1 * noise + (1 if name.endswith("weight") else 0))
            elif name.endswith(("pos_embed", "patch_embed.proj.weight")):
                value.copy_(1.5 * noise / (1 if value.ndim == 3 else value[0].numel() ** 0.5))
            elif "embed" in name:
                value.copy_(0.5 * noise)
            else:
                value.copy_(noise / value[0].numel() ** 0.5)
    model.eval()
