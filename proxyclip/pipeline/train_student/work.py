"""What each worker of Ray Train does."""

from __future__ import annotations

from typing import Any

import ray.train.torch

from proxyclip.training.student.loop import Training, TrainingStopped
from proxyclip.training.student.results import write_results


def work(config: dict[str, Any]) -> None:
    """Train. What no second try would mend is reported, not raised: Ray would try it again."""
    news = config["news"]
    try:
        training = Training(config["job"], ray.train.torch.get_device())
        training.run(news.put)
        if training.place.rank == 0:
            write_results(training)
    except TrainingStopped as error:
        news.put({"stopped": str(error)})
