"""Read checkpoint files safely, and load every tensor of them or none."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name: safetensors, a pickle without code, or a TorchScript archive (OpenAI's)."""
    refusal = (
        f"{path} is not a checkpoint that can be read safely; give a safetensors file, a plain state dict or a "
        "TorchScript archive, without pickled code."
    )
    try:
        state = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except (SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{refusal} ({type(error).__name__})") from error
    for key in ("state_dict", "model", "teacher"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{refusal} (It holds more than tensors by name.)")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _read_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        with contextlib.suppress(RuntimeError):
            return torch.jit.load(path, map_location="cpu").state_dict()
        raise error


def load_state(
    model: nn.Module,
    state: dict[str, Tensor],
    path: Path,
    what: str,
    spare: tuple[str, ...],
    unused: tuple[str, ...] = (),
) -> None:
    """Load every tensor of a state dict; ValueError names the tensors that do not fit.

    what: the name of the model in that error. spare, unused: beginnings of names. The file may hold `spare` tensors
    that the model lacks. It may hold or lack `unused` tensors.
    """
    wanted = {n: tuple(t.shape) for n, t in model.state_dict().items() if not n.startswith(unused)}
    found = {name: tuple(value.shape) for name, value in state.items()}
    computed = {name for name, _ in model.named_buffers()} - model.state_dict().keys()
    problems = [f"{name}: missing" for name in wanted if name not in found]
    problems += [
        f"{name}: shape {found[name]} in the file, {shape} in the model"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    problems += [
        f"{name}: not in the model"
        for name in found
        if name not in wanted and name not in computed and not name.startswith(spare + unused)
    ]
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise ValueError(f"{path} does not hold the weights of {what}: {'; '.join(problems[:5])}{more}.")
    model.load_state_dict({name: state[name] for name in wanted}, strict=False)
