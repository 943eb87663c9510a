"""What each process of a training does, with Ray Train or alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from proxyclip.models.cliprc.checkpoint import ClipRC, load_cliprc
from proxyclip.models.cliprc.description import Description
from proxyclip.training.cliprc import state
from proxyclip.training.cliprc.opening import OpenedTraining
from proxyclip.training.cliprc.scoring import figures, scored
from proxyclip.training.cliprc.start import new_networks, open_clip_tower, text_of
from proxyclip.training.cliprc.train import Report, Training
from proxyclip.training.examples import open_examples
from proxyclip.training.order import Place
from proxyclip.training.processes import Processes


def work(opened: OpenedTraining, place: Place, device: torch.device, report: Report | None = None) -> None:
    """Train, write the checkpoint, and score it. Raises TrainingError, or ValueError for inputs that have changed."""
    options, settings, processes = opened.options, opened.settings, Processes(place)
    model = _begin(opened)
    examples = open_examples(options.images, options.labels, settings.classes)
    if not settings.inputs.startswith(examples.digest):
        raise ValueError("The images or labels have changed since the training began (an output may have grown).")
    training = Training(settings, model.networks, model.text, examples, opened.storage, processes, device)
    training.run(options.save_every, report)
    trained = ClipRC(model.networks.eval(), model.text, model.description)
    if place.rank == 0:
        opened.storage.write(state.TRAINED, trained.to_bytes())
    if options.score_images is None or options.score_labels is None:
        return
    held_out = open_examples(options.score_images, options.score_labels, settings.classes)
    counts = scored(trained, held_out, opened.vocabulary, processes, device)
    if place.rank == 0:
        found = figures(counts, settings.unseen, opened.vocabulary)
        opened.storage.write(state.SCORES, json.dumps(found, indent=1).encode())


def with_ray(config: Mapping[str, Any]) -> None:
    """The function of Ray Train's workers."""
    import ray.train
    from ray.train.torch import get_device

    context = ray.train.get_context()
    place = Place(context.get_world_rank(), context.get_world_size())
    device = get_device()
    work(config["opened"], place, device if isinstance(device, torch.device) else device[0])


def _begin(opened: OpenedTraining) -> ClipRC:
    options, settings = opened.options, opened.settings
    if opened.clip is None:
        start = load_cliprc({"checkpoint": Path(str(options.start_from))}, recovery=True)
        networks, text = start.networks, start.text
    else:
        clip = open_clip_tower(opened.clip)
        networks = new_networks(clip, settings.image_px, settings.prompts, settings.seed)
        text = text_of(opened.vocabulary, clip, options.recipe)
        if text.shape[1] != networks.sizes.embed:
            raise ValueError(f"The text has {text.shape[1]} numbers a class, CLIP's space {networks.sizes.embed}.")
    seen = tuple(range(len(settings.classes))) if settings.mode == "fully" else settings.seen
    tower = networks.tower
    description = Description(
        settings.classes, seen, settings.mode == "transductive", tower.head_width, tower.quick_gelu, tower.eps
    )
    return ClipRC(networks, text, description)
