"""The verbs that train networks: train-student."""

from __future__ import annotations

import sys
from typing import Annotated

from tyro.conf import arg

from proxyclip.pipeline.train_student.options import TrainStudentOptions


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
