"""The training of one worker, from the last checkpoint to the end."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from proxyclip.dataset.reading.labels import Labels
from proxyclip.models.student.card import Card
from proxyclip.models.student.network import build, encoder_module, load_encoder, pixels_of, prepare
from proxyclip.storage.store import Storage, public_uri
from proxyclip.training.mask_dataset import MaskDataset
from proxyclip.training.order import Place
from proxyclip.training.processes import Processes
from proxyclip.training.student.batches import batches
from proxyclip.training.student.checkpoints import Checkpoints
from proxyclip.training.student.job import Job
from proxyclip.training.student.masks import fingerprint_of, share_of, split
from proxyclip.training.student.objective import class_weights, learning_rate, weighted_cross_entropy
from proxyclip.training.student.validation import HELD_OUT, LABELLED, Validation, score

Report = Callable[[dict[str, Any]], None]

# Steps between two lines of progress, and two points of the curve of the loss.
_SHOWN_EVERY = 10


class TrainingStopped(ValueError):  # noqa: N818
    """A training that cannot go on, whoever tries again: the loss is no number, or the masks have changed."""


class Training:
    """One worker's networks, masks and optimizer."""

    def __init__(self, job: Job, device: torch.device) -> None:
        self.job, self.device, self.settings = job, device, job.settings
        self.place = Place.find(None, None)
        self.processes = Processes(self.place)
        self.checkpoints = Checkpoints(Storage(job.output))
        torch.manual_seed(job.settings.seed)
        torch.set_num_threads(job.threads)
        self.dataset = MaskDataset(job.labels, job.images, ignore_below=job.ignore_below, thresholds=job.thresholds)
        if fingerprint_of(Labels.open(job.labels)) != job.masks.fingerprint:
            raise TrainingStopped(
                f"{public_uri(job.labels)} has changed since the training began: a job is writing to it, or has. Wait "
                "until it is done, then train into a new --output."
            )
        uris = self.dataset.uris.to_pylist()
        learn, held = split(uris, 0 if job.uris else self.settings.held_out, job.uris)
        self.learn = share_of(learn, uris, job.fraction)
        kind = LABELLED if job.uris else HELD_OUT
        self.validation = Validation(kind, self.dataset, held, job.uris, job.val_images, job.val_labels)
        self.card = self._card()
        self.network = self._network()
        self.ema = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimizer = self._optimizer()
        self.history: list[dict[str, float]] = []  # of each checkpoint
        self.losses: list[tuple[float, float]] = []  # step, and mean loss since the one before
        self.recent: list[float] = []  # losses since then
        self.step = 0
        self._resume()

    def run(self, report: Report) -> None:
        """Train to the end. Raises TrainingStopped with the step; the last checkpoint stays."""
        settings, weights = self.settings, class_weights(list(self.job.masks.pixels), self.settings.balance)
        classes = None if weights is None else weights.to(self.device)
        model: nn.Module = self.network
        if self.place.world_size > 1:
            model = DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None)
        source = batches(
            self.dataset, self.learn, settings, self.place, self.step * settings.accumulate, self.job.loaders
        )
        began, first, losses = time.monotonic(), self.step, list[float]()
        while self.step < settings.steps:
            losses.append(self._step(model, source, classes))
            self.recent.append(losses[-1])
            self.step += 1
            told = self.step % _SHOWN_EVERY == 0 or self.step == settings.steps
            if told:
                self.losses.append((float(self.step), sum(self.recent) / len(self.recent)))
                self.recent = []
            if self.step % self.job.every == 0 or self.step == settings.steps:
                found = {"step": float(self.step), "loss": sum(losses) / len(losses), "miou": self._score()}
                self.history.append(found)
                losses = []
                if self.place.rank == 0:
                    self.checkpoints.save(self.step, self._state())
            if self.place.rank == 0 and told:
                passed = time.monotonic() - began
                images = (self.step - first) * settings.batch_size * settings.accumulate * self.place.world_size
                report(
                    {
                        "step": self.step,
                        "steps": settings.steps,
                        "loss": self.losses[-1][1],
                        "miou": self.history[-1]["miou"] if self.history else None,
                        "images_per_s": images / passed,
                        "left_s": passed / (self.step - first) * (settings.steps - self.step),
                    }
                )

    def _step(self, model: nn.Module, source: Any, classes: Tensor | None) -> float:
        # All chance of a step comes from its number, so that a resumed training draws the same.
        torch.manual_seed(hash((self.settings.seed, self.step, self.place.rank)) % 2**63)
        rate = learning_rate(self.step, self.settings)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * rate
        model.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for _ in range(self.settings.accumulate):
            image, mask, confidence = (each.to(self.device, non_blocking=True) for each in next(source))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bf16):
                logits = model(prepare(image, self.card.mean, self.card.std))
            loss = weighted_cross_entropy(
                logits, mask, confidence, ignore=self.dataset.ignore, settings=self.settings, classes=classes
            )
            (loss / self.settings.accumulate).backward()
            total += loss.detach() / self.settings.accumulate
        value = float(self.processes.mean(total))
        if value != value or value in (float("inf"), float("-inf")):
            raise TrainingStopped(
                f"step {self.step + 1}: the loss is {value}. The last good checkpoint is that of step "
                f"{int(self.history[-1]['step']) if self.history else 0}. Lower --lr, or leave out --bf16, and train "
                "into a new --output."
            )
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self._average()
        return value

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step)) if self.settings.ema else 0.0
        for mean, value in zip(self.ema.state_dict().values(), self.network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)
            else:
                mean.copy_(value)

    def _score(self) -> float:
        return score(self.ema, self.validation, self.card, self.device, self.processes)

    def _card(self) -> Card:
        settings, job = self.settings, self.job
        pixels = pixels_of(settings.architecture, settings.encoder)
        masks = {"fingerprint": job.masks.fingerprint, "recipe": job.masks.recipe, "images": len(self.learn)}
        return Card(
            settings.architecture,
            settings.encoder,
            job.masks.class_names,
            settings.size,
            pixels.multiple,
            pixels.mean,
            pixels.std,
            masks=masks,
            licences={"encoder": pixels.licence, **dict(job.licences)},
        )

    def _network(self) -> nn.Module:
        settings = self.settings
        network = build(settings.architecture, settings.encoder, len(self.card.classes), settings.size)
        if self.job.encoder_weights is not None and not self.checkpoints.exist():
            weights = None if self.job.encoder_weights == "download" else self.job.encoder_weights
            load_encoder(network, settings.encoder, weights)
        return network.to(self.device)

    def _optimizer(self) -> torch.optim.Optimizer:
        encoder = {id(each) for each in encoder_module(self.network).parameters()}
        settings = self.settings
        groups = []
        for share, inside in ((settings.encoder_lr, True), (1.0, False)):
            some = [each for each in self.network.parameters() if (id(each) in encoder) == inside]
            if not share:
                for each in some:
                    each.requires_grad_(False)
            else:
                groups.append({"params": some, "base": settings.lr * share, "lr": settings.lr * share})
        return torch.optim.AdamW(groups, weight_decay=settings.weight_decay)

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "losses": self.losses,
            "recent": self.recent,
        }

    def _resume(self) -> None:
        state = self.checkpoints.load()
        if state is None:
            return
        try:
            self.network.load_state_dict(state["network"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise TrainingStopped(
                f"{public_uri(self.job.output)}: its checkpoint is of another network than {self.settings.architecture}"
                f" over {self.settings.encoder}: {error}"
            ) from error
        self.step, self.history = state["step"], state["history"]
        self.losses, self.recent = state["losses"], state["recent"]
