"""The networks of students: segmentation-models-pytorch over timm's encoders, and a light head on a transformer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from proxyclip.models.networks.checkpoints import read_state

_SMP = {
    "unet": "Unet",
    "fpn": "FPN",
    "upernet": "UPerNet",
    "segformer": "Segformer",
    "deeplabv3plus": "DeepLabV3Plus",
    "dpt": "DPT",
}


@dataclass(frozen=True)
class Pixels:
    """How the encoder wants its pixels. multiple: its sides must be divisible by this. licence: of timm's weights."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    multiple: int
    licence: str


class Light(nn.Module):
    """A vision transformer whose patch tokens a small convolutional head labels."""

    def __init__(self, encoder: str, num_classes: int, size: int) -> None:
        super().__init__()
        network: Any = timm.create_model(encoder, num_classes=0, img_size=size, dynamic_img_size=True)
        self.encoder = network
        dim, self.patch, self.prefix = (
            network.num_features,
            network.patch_embed.patch_size[0],
            network.num_prefix_tokens,
        )
        self.mix = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.norm = nn.BatchNorm2d(dim)
        self.label = nn.Conv2d(dim, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        encoder: Any = self.encoder
        tokens = encoder.forward_features(image)[:, self.prefix :]  # (B, N, D), patches
        height, width = image.shape[2] // self.patch, image.shape[3] // self.patch
        grid = tokens.transpose(1, 2).unflatten(2, (height, width))
        logits = self.label(F.gelu(self.norm(grid + self.mix(grid))))
        return F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=False)


def build(architecture: str, encoder: str, num_classes: int, size: int) -> nn.Module:
    """A student with random weights: float (B, 3, H, W) to logits (B, C, H, W).

    Raises ValueError for an encoder that timm does not have, or that does not go with the architecture.
    """
    if not timm.is_model(encoder):
        raise ValueError(f"--encoder {encoder}: timm has no such network; timm.list_models() lists them.")
    try:
        if architecture == "light":
            return Light(encoder, num_classes, size)
        import segmentation_models_pytorch as smp

        extra: dict[str, Any] = {"dynamic_img_size": True} if architecture == "dpt" else {}
        network: nn.Module = getattr(smp, _SMP[architecture])(
            f"tu-{encoder}", encoder_weights=None, classes=num_classes, **extra
        )
        return network
    except (AttributeError, RuntimeError, TypeError, ValueError, KeyError) as error:
        raise ValueError(f"--encoder {encoder} does not go with --architecture {architecture}: {error}") from error


def pixels_of(architecture: str, encoder: str) -> Pixels:
    """How an encoder of timm wants its pixels."""
    config = timm.get_pretrained_cfg(encoder, allow_unregistered=True)
    mean = tuple(map(float, config.mean)) if config else (0.485, 0.456, 0.406)
    std = tuple(map(float, config.std)) if config else (0.229, 0.224, 0.225)
    licence = (config.license if config else None) or "not known to timm"
    return Pixels(mean, std, 16 if architecture in ("light", "dpt") else 32, licence)


def encoder_module(network: nn.Module) -> nn.Module:
    """The part of a student that timm made."""
    encoder = network.encoder
    assert isinstance(encoder, nn.Module)
    inner = getattr(encoder, "model", encoder)
    assert isinstance(inner, nn.Module)
    return inner


def load_encoder(network: nn.Module, encoder: str, weights: str | None) -> None:
    """Give the encoder weights: of a file, or those that timm downloads for its name.

    Raises ValueError if less than half of the encoder's tensors are in the file.
    """
    inner = encoder_module(network)
    if weights is None:
        state = timm.create_model(encoder, pretrained=True).state_dict()
    else:
        path = Path(weights)
        state = load_file(path) if path.suffix == ".safetensors" else read_state(path)
    own = inner.state_dict()
    fitting: dict[str, Tensor] = {}
    for name, value in state.items():
        if name not in own:
            continue
        if name == "pos_embed" and value.shape != own[name].shape:
            size, prefix = inner.patch_embed.grid_size, inner.num_prefix_tokens  # type: ignore[union-attr]
            value = resample_abs_pos_embed(value.float(), new_size=list(size), num_prefix_tokens=prefix)  # type: ignore[arg-type]
        if value.shape == own[name].shape:
            fitting[name] = value.float()
    if 2 * len(fitting) < len(own):
        missing = next(name for name in own if name not in fitting)
        raise ValueError(
            f"--encoder-weights {weights}: only {len(fitting)} of the {len(own)} tensors of {encoder} are in it; "
            f"{missing!r} is missing or has another shape. Are these the weights of another network?"
        )
    inner.load_state_dict(fitting, strict=False)


def prepare(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 (..., 3, H, W) to what the encoder takes."""
    scale = torch.tensor(std, device=image.device).view(3, 1, 1)
    return (image.float() / 255 - torch.tensor(mean, device=image.device).view(3, 1, 1)) / scale
