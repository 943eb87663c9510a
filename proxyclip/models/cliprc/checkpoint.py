"""A CLIP-RC from its checkpoint, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from proxyclip.models.cliprc.description import METADATA, TEXT, Description, check_shapes, description_of
from proxyclip.models.cliprc.encoder import Encoder, Tower
from proxyclip.models.cliprc.head import Head
from proxyclip.models.cliprc.sizes import BACKBONE, HEAD, Sizes, sizes_of
from proxyclip.models.networks.checkpoints import read_state

# How far a row of the text may be from unit length: the release's tables are float16.
_UNIT = 1e-2


@dataclass(frozen=True, eq=False)
class ClipRC:
    """The networks, the text of each class (C, D) float32, and what the checkpoint says of itself."""

    networks: Networks
    text: Tensor
    description: Description

    def to_bytes(self) -> bytes:
        """A file that says everything. The same networks give the same bytes."""
        state = {name: value.detach().cpu().contiguous() for name, value in self.networks.named_state().items()}
        return save({**state, TEXT: self.text.cpu().contiguous()}, {METADATA: self.description.to_json()})


class Networks(nn.Module):
    """Encoder and head. recovery: with the decoder that only training uses."""

    def __init__(self, sizes: Sizes, tower: Tower, *, recovery: bool = False) -> None:
        super().__init__()
        self.sizes, self.tower = sizes, tower
        self.encoder = Encoder(sizes, tower)
        self.head = Head(sizes.embed, recovery=recovery)

    def named_state(self) -> dict[str, Tensor]:
        """The tensors, by the names of the release."""
        parts = {BACKBONE: self.encoder, HEAD: self.head}
        return {prefix + name: value for prefix, part in parts.items() for name, value in part.state_dict().items()}

    def load_named(self, state: Mapping[str, Tensor]) -> None:
        """Take the tensors of a checkpoint whose names and shapes were checked; those that are not used stay out."""
        with torch.no_grad():
            for name, value in self.named_state().items():
                value.copy_(state[name])


def load_cliprc(files: Mapping[str, Path], *, recovery: bool = False) -> ClipRC:
    """A CLIP-RC on the CPU. files: as `recipes.teachers` finds them. recovery: as in `Networks`.

    Raises ValueError if a file is not a checkpoint of CLIP-RC, or lacks tensors.
    """
    description, path = description_of(files), files["checkpoint"]
    state = read_tensors(path)
    check_shapes({name: tuple(value.shape) for name, value in state.items()}, path, recovery=recovery)
    text = _text(state, files, description)
    networks = Networks(
        sizes_of({name: tuple(value.shape) for name, value in state.items()}), tower_of(description), recovery=recovery
    )
    networks.load_named(state)
    return ClipRC(networks.eval(), text, description)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, without running code of it; mmcv's archives and safetensors."""
    return load_file(path) if path.suffix == ".safetensors" else read_state(path)


def tower_of(description: Description) -> Tower:
    """What the description says of the image tower."""
    return Tower(description.head_width, description.quick_gelu, description.eps)


def _text(state: Mapping[str, Tensor], files: Mapping[str, Path], description: Description) -> Tensor:
    path = files.get("text", files["checkpoint"])
    found = dict(state) if "text" not in files else load_file(path)
    key = TEXT if TEXT in found else "embeddings"
    if key not in found:
        raise ValueError(f"{path} has no tensor {TEXT!r} or 'embeddings' with a row of text for each class.")
    text = found[key].float()
    wanted = len(description.classes), state[f"{BACKBONE}proj"].shape[1]
    if tuple(text.shape) != wanted:
        raise ValueError(f"{path}: the text has shape {tuple(text.shape)}; classes and text space make it {wanted}.")
    if not bool(((text.norm(dim=1) - 1).abs() < _UNIT).all()):
        raise ValueError(f"{path}: the rows of the text must have length 1.")
    return text
