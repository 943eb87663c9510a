"""What a training leaves: its settings, its state after some iterations, its history, and the trained CLIP-RC."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError

from proxyclip.storage.store import Storage, public_uri
from proxyclip.training.cliprc.settings import TrainSettings

SETTINGS = "training.json"
TRAINED = "cliprc.safetensors"
SCORES = "scores.json"
_STATES = "state/"
_KEPT = 2


def begin(storage: Storage, settings: TrainSettings) -> None:
    """Record the settings, or raise ValueError if the output belongs to another training."""
    text = json.dumps(dataclasses.asdict(settings), indent=1, sort_keys=True).encode()
    if storage.create(SETTINGS, text):
        return
    there, here = json.loads(storage.read(SETTINGS)), json.loads(text)
    other = [name for name in here if there.get(name) != here[name]]
    if not other:
        return
    if other == ["inputs"]:
        raise ValueError(
            f"{public_uri(storage.uri)}: the images, labels or CLIP weights are not those that this training began "
            "with (an output may have grown). Restore them, or give another --output."
        )
    name = other[0]
    raise ValueError(
        f"{public_uri(storage.uri)} holds another training: {name} is {there.get(name)!r} there and {here[name]!r} "
        "here. Give the same options to continue it, or another --output."
    )


def iterations_done(storage: Storage) -> list[int]:
    """After which iterations there is a state."""
    keys = [entry.key for entry in storage.list(_STATES.rstrip("/"))]
    return sorted(int(key[len(_STATES) :].split(".")[0]) for key in keys if key.endswith(".safetensors"))


def write_state(storage: Storage, iteration: int, tensors: Mapping[str, Any], history: list[dict[str, float]]) -> None:
    """Keep the state after some iterations; older ones than the last two are removed."""
    from safetensors.torch import save

    storage.write(_key(iteration), save(dict(tensors), {"history": json.dumps(history)}))
    for old in iterations_done(storage)[:-_KEPT]:
        storage.delete(_key(old))


def read_state(storage: Storage) -> tuple[int, dict[str, Any], list[dict[str, float]]] | None:
    """The last state, or None. A file that is no state is refused."""
    from safetensors.torch import load

    done = iterations_done(storage)
    if not done:
        return None
    data = storage.read(_key(done[-1]))
    try:
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
    except (SafetensorError, ValueError) as error:
        raise ValueError(
            f"{public_uri(storage.uri)}/{_key(done[-1])} is damaged ({error}); remove it to go on from the one before."
        ) from error
    return done[-1], tensors, json.loads(header["__metadata__"]["history"])


def read_history(storage: Storage, iteration: int) -> list[dict[str, float]]:
    """The rows of a state, without its tensors."""
    with storage.open(_key(iteration)) as file:
        length = int.from_bytes(file.read(8), "little")
        rows: list[dict[str, float]] = json.loads(json.loads(file.read(length))["__metadata__"]["history"])
    return rows


def _key(iteration: int) -> str:
    return f"{_STATES}{iteration:08d}.safetensors"
