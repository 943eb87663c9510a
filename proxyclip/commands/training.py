"""The verbs that train networks: train-student, train-cliprc."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from typing import Annotated

from tyro.conf import arg

from proxyclip.pipeline.train_student.options import TrainStudentOptions
from proxyclip.training.cliprc.options import TrainCliprcOptions


def train_student(options: Annotated[TrainStudentOptions, arg(name="")]) -> int:
    """Train a compact segmentation network on the masks of an output, with Ray Train.

    Label with it by `proxyclip label --preset student --student OUTPUT`. Run the same command again to continue a
    training that stopped. Exit codes: 0, the student is written. 1, it is not; the last line says why. 2, the command
    is wrong.
    """
    from proxyclip.pipeline.train_student import run
    from proxyclip.storage.store import public_uri

    done = run.train_student(options)
    if done.stopped is not None:
        print(f"Stopped: {done.stopped}.", file=sys.stderr)
        return 1
    score = done.score
    print(f"mIoU {score['miou']:.2f} on {score['images']} images ({score['on']}).")
    print(f"Student: {public_uri(options.output)}/student.safetensors (also .onnx, .pt2; curves.png, predictions.png)")
    return 0


def train_cliprc(options: Annotated[TrainCliprcOptions, arg(name="")]) -> int:
    """Train CLIP-RC: masks of some classes teach it, and it labels others too.

    Run the same command again to continue a training that stopped. Use the result with `proxyclip label --method cliprc
    --method-weights OUTPUT/cliprc.safetensors`. Exit codes: 0, the checkpoint is written. 1, it is not; the last line
    says why. 2, the command is wrong.
    """
    from proxyclip.pipeline.opening import output_uri
    from proxyclip.storage.store import public_uri
    from proxyclip.training.cliprc import run, state
    from proxyclip.training.cliprc.opening import open_training

    logging.basicConfig(format="%(levelname)s %(message)s")
    opened = open_training(replace(options, output=output_uri(options.output)))
    try:
        if opened.finished or options.workers == 0:
            scores = run.execute(opened, _say)
        else:
            from proxyclip.pipeline.cluster.capacity import gpus_of_an_actor
            from proxyclip.pipeline.cluster.join import cluster

            with cluster(options.address, verbose=options.verbose):
                gpus = gpus_of_an_actor("auto" if options.num_gpus is None else options.num_gpus, options.address)
                scores = run.execute(opened, _say, use_gpu=bool(gpus))
    except RuntimeError as error:
        print(f"{error}\nWhat is done is kept; run the same command again to continue.", file=sys.stderr)
        return 1
    for name, key in (("pixel accuracy", "pixel_accuracy"), ("mIoU seen", "miou_seen"), ("mIoU unseen", "miou_unseen")):
        if scores is not None:
            print(f"{name:15} {_percent(scores[key])}")
    if scores is not None:
        print(f"{'harmonic mean':15} {_percent(scores['harmonic'])}")
    print(f"Checkpoint: {public_uri(options.output.rstrip('/'))}/{state.TRAINED}")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
