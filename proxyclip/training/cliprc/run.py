"""Train a CLIP-RC: check, then train here or with Ray Train, and say how far it is."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from proxyclip.training.cliprc import state
from proxyclip.training.cliprc.opening import OpenedTraining

Say = Callable[[str], None]

# Seconds between two looks at what the workers have kept.
_LOOK_S = 5.0


def execute(opened: OpenedTraining, say: Say, *, use_gpu: bool = False) -> dict[str, Any] | None:
    """Train to the end, or go on. Returns the scores, if photographs to score were given.

    With workers, Ray must be running already. Raises ValueError or RuntimeError, with the reason, if it fails.
    """
    if not opened.finished or (opened.options.score_images is not None and not opened.storage.exists(state.SCORES)):
        if opened.options.workers == 0:
            _alone(opened, say)
        else:
            _with_ray(opened, say, use_gpu)
    return json.loads(opened.storage.read(state.SCORES)) if opened.storage.exists(state.SCORES) else None


def _alone(opened: OpenedTraining, say: Say) -> None:
    import torch

    from proxyclip.training.cliprc.train import TrainingError
    from proxyclip.training.cliprc.worker import work
    from proxyclip.training.order import Place

    device = torch.device("cuda" if torch.cuda.is_available() and opened.options.num_gpus != 0 else "cpu")
    try:
        work(opened, Place(0, 1), device, lambda row: say(_line(row, opened.settings.iterations)))
    except TrainingError as error:
        raise RuntimeError(str(error)) from error


def _with_ray(opened: OpenedTraining, say: Say, use_gpu: bool) -> None:
    import tempfile

    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from proxyclip.training.cliprc.worker import with_ray

    stop = threading.Event()
    watching = threading.Thread(target=_watch, args=(opened, say, stop), daemon=True)
    with tempfile.TemporaryDirectory() as folder:  # states lie in the output; Ray keeps nothing of its own
        trainer = TorchTrainer(
            with_ray,
            train_loop_config={"opened": opened},
            scaling_config=ScalingConfig(num_workers=opened.options.workers, use_gpu=use_gpu),
            torch_config=TorchConfig(backend="nccl" if use_gpu else "gloo"),
            run_config=RunConfig(storage_path=folder, name="train-cliprc"),
        )
        watching.start()
        try:
            trainer.fit()
        except Exception as error:  # Ray wraps what a worker raised
            raise RuntimeError(_reason(error)) from error
        finally:
            stop.set()
            watching.join()


def _watch(opened: OpenedTraining, say: Say, stop: threading.Event) -> None:
    """Say which states appear."""
    last = max(state.iterations_done(opened.storage), default=0)
    while not stop.wait(_LOOK_S):
        done = max(state.iterations_done(opened.storage), default=0)
        if done > last:
            found = state.read_history(opened.storage, done)
            say(_line(found[-1], opened.settings.iterations))
            last = done


def _reason(error: BaseException) -> str:
    """What a worker said, in one line."""
    failures = getattr(error, "worker_failures", None) or {}
    inner: BaseException = next(iter(failures.values()), error)
    return str(getattr(inner, "cause", None) or inner).strip().splitlines()[-1]


def _line(row: dict[str, float], iterations: int) -> str:
    text = f"iteration {row['iteration']:.0f} of {iterations}: loss {row['loss']:.3f}"
    if "images_per_s" in row:
        text += f", {row['images_per_s']:.1f} images/s, {row['left_s'] / 60:.0f} min left"
    return text
