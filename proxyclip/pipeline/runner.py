"""Run shards on Ray: join the cluster, start the actors, give a receipt for each shard."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import ray
from ray.exceptions import RayTaskError

from proxyclip.config import Dtype, RunConfig, TeacherConfig
from proxyclip.dataset.plan import ShardRange, waves
from proxyclip.dataset.run_record import has_embeddings
from proxyclip.pipeline.cluster.capacity import choose_actors
from proxyclip.pipeline.cluster.join import cluster, configure_data
from proxyclip.pipeline.metrics import RunMetrics
from proxyclip.pipeline.opening import Run
from proxyclip.pipeline.stages.actor import ActorConfig
from proxyclip.pipeline.stages.embed import embed_vocabulary
from proxyclip.pipeline.stages.graph import label_graph
from proxyclip.pipeline.stages.read import ShardSource
from proxyclip.pipeline.stages.starts import Starts
from proxyclip.pipeline.stages.write import Receipt, WriteShards

# A read task streams at most this many shards; in small runs fewer, so that each actor has a few tasks to share. Each
# running task is a process, and reads many images at once.
SHARDS_PER_TASK, TASKS_PER_ACTOR = 50, 4

# Actors that a growing cluster is taken to reach, if it has fewer now.
GROWN = 16

# Shards of one Ray Dataset. This bounds what the driver and Ray's scheduler hold; actors load their networks for each.
SHARDS_PER_WAVE = 100_000


class RayRunner(contextlib.ExitStack):
    """A cluster that a run has joined, or has started. A started one ends when the runner is closed."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run
        self.retries = 0  # storage requests sent again that no receipt counts
        self.enter_context(cluster(run.options.address, verbose=run.options.verbose))
        self._actors = choose_actors(run.options.concurrency, run.options.num_gpus, run.options.address)

    def dtype(self, asked: Dtype | None) -> Dtype:
        """The precision for the actors. On CPUs they are taken to have the driver's processor."""
        if self._actors.num_gpus:
            if asked == "int8":
                raise ValueError("--dtype int8 is for CPUs; on a GPU leave it out, or use --num-gpus 0.")
            return asked or "bfloat16"
        if asked in (None, "float32"):
            return "float32"
        from proxyclip.models.kernels.precision import cpu_dtype  # loads torch, which a driver needs for nothing else

        return cpu_dtype(asked, force=self._run.options.force_dtype)

    def label(self, config: RunConfig, pending: list[ShardRange]) -> Iterator[Receipt]:
        """Read, label and write the shards, in any order, wave by wave."""
        options, actors = self._run.options, self._actors
        configure_data(verbose=options.verbose)
        actor = ActorConfig(
            segmenter=config,
            weights=self._run.weights,
            output=options.output,
            device="cuda" if actors.num_gpus else "cpu",
            threads=options.threads or 0,
            batch_windows=options.batch_windows,
            confidence_stride=options.confidence_stride,
            image_timeout_s=options.image_timeout_s,
            masks=not options.add_features,
            codec=options.features_codec,
            collect=options.collect_statistics,
            head=self._run.head is not None,
            regions=options.regions,
            compiled=options.compile and bool(actors.num_gpus),
        )
        embedded = self._embed(actor, actors.resources if actors.num_gpus else {"num_cpus": 0.25})
        vocabulary = self._run.vocabulary if actor.masks else None
        class_names = vocabulary.class_names if vocabulary else None
        write = WriteShards(options.output, class_names, features=actor.codec is not None)
        metrics = RunMetrics(options.output, sum(part.num_shards for part in pending))
        for wave in waves(pending, SHARDS_PER_WAVE):
            num_shards = sum(part.num_shards for part in wave)
            expected = actors.at_most or max(actors.at_first, GROWN)
            per_task = min(max(num_shards // (TASKS_PER_ACTOR * expected), 1), SHARDS_PER_TASK)
            ranges = [shards for part in wave for shards in part.split(per_task)]
            source = ShardSource(options.input, options.output, ranges)
            graph = label_graph(source, (actor, Starts(), embedded), write, actors)
            batches: Any = iter(graph.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
            with contextlib.closing(batches):  # an error here ends the job on the cluster too
                for batch in batches:
                    for row in batch.to_pylist():
                        if row["error"] is not None:
                            raise_its_error(embedded)
                        receipt = Receipt(**row)
                        metrics.count(receipt)
                        yield receipt
        if embedded is not None:
            self.retries += ray.get(embedded)

    def _embed(self, actor: ActorConfig, resources: dict[str, float]) -> ray.ObjectRef | None:
        """Start the task that embeds the vocabulary, unless the output has embeddings. The actors wait for it.

        A teacher embeds queries by itself.
        """
        config = actor.segmenter
        if not actor.masks or isinstance(config, TeacherConfig) or has_embeddings(self._run.manifest.storage):
            return None
        task = ray.remote(embed_vocabulary).options(**resources)
        embedded: ray.ObjectRef = task.remote(actor.output, config.model, actor.weights, actor.device)
        return embedded


def raise_its_error(task: ray.ObjectRef | None) -> None:
    """Raise the error of the task that embeds the vocabulary, if it fails: then every shard fails without a fault.

    Waits for the task, as every shard does.
    """
    if task is None:
        return
    try:
        ray.get(task)
    except RayTaskError as error:
        if isinstance(error.cause, (ValueError, OSError)):
            raise error.cause from error
        raise
