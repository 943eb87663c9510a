"""Run a relabelling on Ray: join the cluster, embed the vocabularies, give receipts."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import ray

from proxyclip.dataset.run_record import has_embeddings
from proxyclip.pipeline.cluster.join import cluster, configure_data, cpu_share
from proxyclip.pipeline.metrics import RunMetrics
from proxyclip.pipeline.relabel.graph import SHARDS_PER_WAVE, RelabelConfig, TargetConfig, relabel_graph
from proxyclip.pipeline.relabel.opening import Relabelling, Target
from proxyclip.pipeline.runner import raise_its_error
from proxyclip.pipeline.stages.embed import embed_vocabulary
from proxyclip.pipeline.stages.starts import Starts
from proxyclip.pipeline.stages.write import Receipt


class RayRunner(contextlib.ExitStack):
    """A cluster that a run has joined, or has started. A started one ends when the runner is closed."""

    def __init__(self, run: Relabelling) -> None:
        super().__init__()
        self._run = run
        self.enter_context(cluster(run.options.address, verbose=run.options.verbose))

    def relabel(self, pending: dict[int, list[int]]) -> Iterator[tuple[int, Receipt]]:
        """Relabel the shards, in any order."""
        options = self._run.options
        configure_data(verbose=options.verbose)
        num_actors = options.concurrency or max(int(ray.cluster_resources().get("CPU", 1)), 1)
        targets = tuple(
            TargetConfig(target.storage.uri, target.config.decode, self._embed(target), target.head is not None)
            for target in self._run.targets
        )
        windows = self._run.targets[0].config.windows
        config = RelabelConfig(
            options.source, self._run.input, windows, targets, options.confidence_stride, options.regions
        )
        shards, arguments = list(pending.items()), (config, Starts())
        numbers = Counter(number for targets in pending.values() for number in targets)
        metrics = [RunMetrics(target.output, numbers[number]) for number, target in enumerate(targets)]
        for first in range(0, len(shards), SHARDS_PER_WAVE):
            wave = shards[first : first + SHARDS_PER_WAVE]
            graph = relabel_graph(wave, arguments, num_actors, cpu_share(num_actors))
            batches: Any = iter(graph.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
            with contextlib.closing(batches):  # an error here ends the job on the cluster too
                for batch in batches:
                    for row in batch.to_pylist():
                        number = row.pop("target")
                        if row["error"] is not None:
                            raise_its_error(targets[number].embedded)
                        receipt = Receipt(**row)
                        metrics[number].count(receipt)
                        yield number, receipt

    def _embed(self, target: Target) -> ray.ObjectRef | None:
        """Start the task that embeds a vocabulary, unless its output has embeddings. The actors wait for it."""
        if has_embeddings(target.storage):
            return None
        task = ray.remote(embed_vocabulary).options(num_cpus=0.25)
        embedded: ray.ObjectRef = task.remote(target.storage.uri, target.config.model, self._run.weights, "cpu")
        return embedded
