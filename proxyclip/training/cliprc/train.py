"""One training: iterations from the last state on, each a function of its number and of what was before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from proxyclip.models.cliprc.checkpoint import Networks
from proxyclip.models.cliprc.encoder import MEAN, STD
from proxyclip.storage.store import Storage
from proxyclip.training.cliprc import state
from proxyclip.training.cliprc.augment import augmented
from proxyclip.training.cliprc.losses import Weights, losses_of, pseudo_labelled, seen_only
from proxyclip.training.cliprc.settings import TrainSettings
from proxyclip.training.examples import Examples
from proxyclip.training.processes import Processes
from proxyclip.training.samples import ahead

Report = Callable[[dict[str, float]], None]

# Batches that are read while another one trains.
_AHEAD = 2


class TrainingError(RuntimeError):
    """The loss is no number any more."""


@dataclass
class Training:
    """What one process trains with. text: (C, D) of all classes."""

    settings: TrainSettings
    networks: Networks
    text: Tensor
    examples: Examples
    storage: Storage
    processes: Processes
    device: torch.device

    def run(self, save_every: int, report: Report | None = None) -> list[dict[str, float]]:
        """Train to the end. Returns the losses, a row for each state that was kept.

        Raises TrainingError if the loss becomes infinite or NaN; the last state stays.
        """
        settings, networks = self.settings, self.networks.to(self.device).train()
        named = trainable(networks, settings.quirks.frozen_bridge)
        optimizer = torch.optim.AdamW(_groups(named, settings), lr=settings.lr, betas=(0.9, 0.999))
        first, history = self._resume(named, optimizer)
        sums: list[Tensor] = []
        since, begun = time.perf_counter(), first
        batches = ahead(self._batch, range(first, settings.iterations), _AHEAD)
        for iteration, (pixels, labels) in enumerate(batches, first):
            rate = settings.lr_at(iteration)
            for group in optimizer.param_groups:
                group["lr"] = rate
            torch.manual_seed(_seed(settings.seed, iteration, self.processes.place.rank))
            optimizer.zero_grad(set_to_none=True)
            loss, parts = self._loss(pixels.to(self.device), labels.to(self.device))
            told = self.processes.mean(parts)
            if not bool(torch.isfinite(told).all()):
                raise TrainingError(
                    f"The loss is {told.tolist()[0]} in iteration {iteration}. The state after iteration "
                    f"{(state.iterations_done(self.storage) or [0])[-1]} is kept. Lower --lr, or look at the labels."
                )
            loss.backward()
            self.processes.average_gradients(named.values())
            optimizer.step()
            sums.append(told)
            done = iteration + 1
            if done % save_every == 0 or done == settings.iterations:
                means = torch.stack(sums).mean(dim=0).tolist()
                sums.clear()
                names = ("loss", "focal", "dice", "recovery")
                row = {"iteration": float(done), **dict(zip(names, means, strict=True))}
                history.append(row)
                seconds = time.perf_counter() - since
                images = (done - begun) * settings.batch * settings.workers
                left = (settings.iterations - done) * seconds / (done - begun)
                speed = {"images_per_s": images / seconds, "left_s": left}
                if self.processes.place.rank == 0:
                    state.write_state(
                        self.storage, done, _state_of(networks, named, optimizer), [*history[:-1], {**row, **speed}]
                    )
                if report is not None:
                    report({**row, **speed})
        return history

    def _resume(
        self, named: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> tuple[int, list[dict[str, float]]]:
        found = state.read_state(self.storage)
        if found is None:
            return 0, []
        iteration, tensors, history = found
        self.networks.load_named({name[6:]: value for name, value in tensors.items() if name.startswith("model.")})
        for name, parameter in named.items():
            optimizer.state[parameter] = {
                "step": torch.tensor(float(iteration)),
                "exp_avg": tensors[f"first.{name}"].to(self.device),
                "exp_avg_sq": tensors[f"second.{name}"].to(self.device),
            }
        return iteration, history

    def _batch(self, iteration: int) -> tuple[Tensor, Tensor]:
        """Normalised windows (B, 3, S, S) and their labels (B, S, S)."""
        settings, side = self.settings, self.settings.image_px
        mean, std = np.array(MEAN, np.float32), np.array(STD, np.float32)
        pixels, labels = np.zeros((settings.batch, side, side, 3), np.float32), []
        for position, index in enumerate(self._indices(iteration)):
            rng = np.random.default_rng([settings.seed, iteration, self.processes.place.rank, position])
            image, label, height, width = augmented(*self.examples.read(index), side, rng)
            pixels[position, :height, :width] = (image[:height, :width] - mean) / std
            labels.append(label)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(np.stack(labels)).long()

    def _indices(self, iteration: int) -> Iterator[int]:
        """Each photograph comes once in an epoch, over all processes."""
        settings, place, count = self.settings, self.processes.place, len(self.examples)
        start = (iteration * place.world_size + place.rank) * settings.batch
        for number in range(start, start + settings.batch):
            order = np.random.default_rng([settings.seed, number // count]).permutation(count)
            yield int(order[number % count])

    def _loss(self, pixels: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and for people (4,): loss, focal, dice, recovery."""
        settings = self.settings
        text = self.text.to(self.device)
        if settings.mode == "inductive":
            text = text[list(settings.seen)]
        tokens = self.networks.encoder(pixels)
        found = self.networks.head(tokens, text)
        logits = F.interpolate(found.logits, size=labels.shape[1:], mode="bilinear", align_corners=False)
        if settings.mode == "inductive":
            labels = seen_only(labels, settings.seen)
        elif settings.mode == "transductive":
            labels = pseudo_labelled(labels, logits, settings.unseen)
        recovered = self.networks.head.recovery_decoder(found)
        losses = losses_of(
            logits,
            labels,
            found,
            recovered,
            tokens.patches,
            ignored_are_negatives=settings.quirks.ignored_are_negatives,
        )
        pairs = self.processes.mean(losses.pairs)
        total = losses.total(Weights(*settings.weights), pairs)
        least = pairs.clamp(min=1)
        recovery = losses.recovered_queries + losses.recovered_patches
        return total, torch.stack([total, losses.focal / least, losses.dice / least, recovery]).detach()


def trainable(networks: Networks, frozen_bridge: bool) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name: the head and the prompts. The others are frozen."""
    found = {}
    for name, parameter in networks.named_parameters():
        bridge = name == "encoder.region_level_bridge" and not frozen_bridge
        parameter.requires_grad_(name.startswith("head.") or "prompt" in name or bridge)
        if parameter.requires_grad:
            found[name] = parameter
    return found


def _groups(named: dict[str, nn.Parameter], settings: TrainSettings) -> list[dict[str, object]]:
    """Weight decay on everything, or not on norms and biases."""
    spared = [name for name in named if not settings.quirks.decay_norms and (name.endswith(".bias") or "norm" in name)]
    return [
        {"params": [named[name] for name in names], "weight_decay": decay}
        for names, decay in (([name for name in named if name not in spared], settings.weight_decay), (spared, 0.0))
        if names
    ]


def _state_of(
    networks: Networks, named: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    tensors = {f"model.{name}": value for name, value in networks.named_state().items()}
    for name, parameter in named.items():
        if parameter in optimizer.state:  # recovery has no gradient if nothing asks for it
            tensors[f"first.{name}"] = optimizer.state[parameter]["exp_avg"]
            tensors[f"second.{name}"] = optimizer.state[parameter]["exp_avg_sq"]
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def _seed(seed: int, iteration: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, iteration, rank]).generate_state(1, np.uint64)[0] >> 1)
