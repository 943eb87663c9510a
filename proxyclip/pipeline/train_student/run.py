"""Run a training with Ray Train, and tell how it goes."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from dataclasses import dataclass
from typing import Any

from proxyclip.pipeline.train_student.opening import RECORD, Opened, open_training
from proxyclip.pipeline.train_student.options import TrainStudentOptions
from proxyclip.storage.store import Storage
from proxyclip.training.student.job import DONE


@dataclass(frozen=True)
class Trained:
    """stopped: why there is no student; None if there is one."""

    score: dict[str, Any]
    stopped: str | None = None


def train_student(options: TrainStudentOptions) -> Trained:
    """Train to the end, or say why not. A finished training starts no Ray."""
    opened = open_training(options)
    output = Storage(opened.options.output)
    if not opened.finished:
        output.write(RECORD, opened.record())
        if stopped := _with_ray(opened):
            return Trained({}, stopped)
    return Trained(json.loads(output.read(DONE)))


def _with_ray(opened: Opened) -> str | None:
    from proxyclip.pipeline.run import prepare_ray

    prepare_ray()
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.util.queue import Queue

    from proxyclip.pipeline.cluster.join import cluster
    from proxyclip.pipeline.train_student.work import work

    options = opened.options
    with cluster(options.address, verbose=options.verbose), tempfile.TemporaryDirectory() as scratch:
        news = Queue(actor_options={"num_cpus": 0})
        screen = _Screen(news)
        trainer = TorchTrainer(
            work,
            train_loop_config={"job": opened.job, "news": news},
            torch_config=TorchConfig(backend="nccl" if options.gpu else "gloo"),
            scaling_config=ScalingConfig(
                num_workers=options.workers,
                use_gpu=options.gpu,
                resources_per_worker={"CPU": 0.5, **({"GPU": 1} if options.gpu else {})},
            ),
            # Our checkpoints lie in our own storage; Ray keeps its notes here and starts dead workers again.
            run_config=RunConfig(storage_path=scratch, failure_config=FailureConfig(max_failures=2)),
        )
        try:
            trainer.fit()
        except Exception as error:  # Ray wraps whatever a worker raised
            cause = _cause(error)
            return f"{type(cause).__name__}: {cause}. The last checkpoint is kept; run the same command to go on"
        finally:
            screen.close()
            news.shutdown()
        return screen.stopped


def _cause(error: BaseException) -> BaseException:
    failures = getattr(error, "worker_failures", None)
    return next(iter(failures.values())) if failures else error


class _Screen:
    """Prints what workers report, in a thread."""

    def __init__(self, news: Any) -> None:
        self._news = news
        self.stopped: str | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self._drain()

    def _listen(self) -> None:
        while not self._end.wait(1.0):
            self._drain()

    def _drain(self) -> None:
        while not self._news.empty():
            event = self._news.get()
            if "stopped" in event:
                self.stopped = event["stopped"]
            else:
                print(line_of(event), file=sys.stderr, flush=True)


def line_of(event: dict[str, Any]) -> str:
    """A line of progress."""
    miou = "" if event["miou"] is None else f", mIoU {event['miou']:.1f}"
    minutes, seconds = divmod(round(event["left_s"]), 60)
    return (
        f"step {event['step']}/{event['steps']}: loss {event['loss']:.3f}{miou}, {event['images_per_s']:.1f} images/s, "
        f"{minutes}:{seconds:02d} left"
    )
