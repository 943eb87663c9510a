"""The checkpoints of a training, on a disk or in an object store. What `checkpoint.json` does not name is not there."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass
from typing import Any

import torch

from proxyclip.storage.store import Storage

COMMIT = "checkpoint.json"
FOLDER = "checkpoints"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints below an output. At any time one is committed; older ones are removed."""

    storage: Storage

    def exist(self) -> bool:
        """Whether a training has left one."""
        return self.storage.exists(COMMIT)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a checkpoint, then commit it, then remove the others."""
        buffer = io.BytesIO()
        torch.save({"step": step, **state}, buffer)
        data = buffer.getvalue()
        name = f"{FOLDER}/step-{step:08d}.pt"
        self.storage.write(name, data)
        commit = {"step": step, "file": name, "sha256": hashlib.sha256(data).hexdigest()}
        self.storage.write(COMMIT, json.dumps(commit).encode())
        for entry in list(self.storage.list(FOLDER)):
            if entry.key != name:
                self.storage.delete(entry.key)

    def load(self) -> dict[str, Any] | None:
        """The committed checkpoint, or None. Raises ValueError if its file is damaged."""
        if not self.exist():
            return None
        commit = json.loads(self.storage.read(COMMIT))
        data = self.storage.read(commit["file"])
        if hashlib.sha256(data).hexdigest() != commit["sha256"]:
            raise ValueError(
                f"{commit['file']} is not the checkpoint that {COMMIT} names; remove both to train from the start."
            )
        state: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        return state
