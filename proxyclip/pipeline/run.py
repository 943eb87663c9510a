"""`label`: the whole job, from a prefix of images to committed shards and statistics."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ray
import ray.data

from proxyclip.config import LabelOptions, SegmenterConfig, allowed_failures, fingerprint
from proxyclip.dataset.manifest import Manifest
from proxyclip.dataset.plan import ShardRange, waves
from proxyclip.dataset.segments import Compaction
from proxyclip.images.listing import ImageRef, input_storage, list_images
from proxyclip.models.networks.build import check_proxy, clip_embed_dim
from proxyclip.models.networks.weights import weight_hashes
from proxyclip.pipeline.cluster import actor_resources, cluster, configure_data, default_num_gpus, require_gpus
from proxyclip.pipeline.prepare import EMBEDDINGS_KEY, read_vocabulary, write_text_embeddings, write_vocabulary
from proxyclip.pipeline.progress import RunProgress
from proxyclip.pipeline.recipe import package_versions, recipe_of, segmenter_config
from proxyclip.pipeline.stages.graph import label_graph
from proxyclip.pipeline.stages.label import LabelShards, WorkerConfig
from proxyclip.pipeline.stages.read import ShardSource
from proxyclip.pipeline.stages.starts import Starts
from proxyclip.pipeline.stages.write import WriteShards
from proxyclip.recipes.presets import benchmark
from proxyclip.storage.retry import take_retries
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary

logger = logging.getLogger(__name__)

# Shards that one read task streams, at most; fewer in small runs, so that a few tasks an actor share them. Each that
# runs is a process to start, and reads many images at once.
SHARDS_PER_TASK, TASKS_PER_ACTOR = 50, 4

# Shards of one Ray Dataset: bounds what the driver and Ray's scheduler hold. Actors load their networks for each.
SHARDS_PER_WAVE = 100_000

# Shards that fail one after the other before a run stops: then it is not the shards, and each may cost a minute.
ERRORS_IN_A_ROW = 20


@dataclass
class Summary:
    """How a run ended.

    labelled, failed: images with a mask, and without one; of all runs on this output. retries: storage requests
    of this run that failed for a moment and were made again.
    """

    images: int = 0
    labelled: int = 0
    failed: int = 0
    shards: int = 0
    committed: int = 0
    shard_errors: dict[int, str] = field(default_factory=dict)
    stopped: str | None = None
    failures_allowed: bool = False
    retries: int = 0

    @property
    def finished(self) -> bool:
        """Whether every planned shard is committed."""
        return self.committed == self.shards

    @property
    def exit_code(self) -> int:
        """0 all images labelled, 1 not finished, 3 finished with failed images (0 if they are allowed)."""
        if self.stopped or not self.finished:
            return 1
        return 3 if self.failed and not self.failures_allowed else 0


def label(options: LabelOptions) -> Summary:
    """Label a corpus, or go on with a run that stopped.

    Raises ValueError, FileNotFoundError or OSError before any work where the run cannot start:
    unknown names, weights that are not there, an input without images, an output with another recipe.
    """
    take_retries()  # those of whatever this process did before
    options = replace(options, input=Storage(options.input).uri, output=_output_uri(options.output))
    if options.benchmark is not None:
        benchmark(options.preset, options.benchmark)  # refuses an unknown one before its vocabulary is looked for
    vocabulary = Vocabulary.load(options.vocabulary or str(options.benchmark), options.embeddings)
    config = segmenter_config(options, vocabulary)
    check_proxy(config.model, config.windows.crop)
    hashes = weight_hashes(config.model)
    if vocabulary.embeddings is not None and vocabulary.embeddings.shape[1] != clip_embed_dim(config.model):
        raise ValueError(
            f"--embeddings {options.embeddings}: rows are {vocabulary.embeddings.shape[1]} wide, CLIP's text space is "
            f"{clip_embed_dim(config.model)}; embeddings belong to the CLIP that made them."
        )
    manifest = Manifest(Storage(options.output))
    begun = manifest.recipe() is not None
    listing = None if begun else list_images(options.input, exclude=options.output)
    summary = Summary(failures_allowed=options.max_failures is not None)
    with contextlib.ExitStack() as session:

        def join() -> None:
            session.enter_context(cluster(options.address, verbose=options.verbose))

        config = _with_dtype(config, options, manifest, join)
        recipe = recipe_of(config, hashes, vocabulary, options)
        manifest.begin(options.input, recipe, fingerprint(recipe), packages=package_versions())
        write_vocabulary(manifest.storage, vocabulary)
        pending = manifest.pending() if begun else []
        if pending and _is_there(options.input, manifest, pending[0]):
            join()  # what is planned need not wait until the input is listed
            _label_pending(config, options, manifest, pending, summary)
        if summary.stopped is None:
            if listing is None:
                listing = list_images(options.input, exclude=options.output)
            _extend_plan(manifest, listing, options.shard_size)
            if pending := manifest.pending(besides=summary.shard_errors):
                join()
                _label_pending(config, options, manifest, pending, summary)
    try:
        manifest.compact()
        totals = manifest.totals()
        if totals.committed == totals.shards and not manifest.has_class_stats():
            manifest.write_class_stats()
    except OSError as error:
        if not summary.shard_errors:
            raise
        return replace(summary, stopped=f"the output cannot be read any more: {error}")
    return replace(
        summary,
        images=totals.planned,
        labelled=totals.labelled,
        failed=totals.failed,
        shards=totals.shards,
        committed=totals.committed,
        retries=summary.retries + take_retries(),
    )


def _is_there(input_uri: str, manifest: Manifest, shards: ShardRange) -> bool:
    """Whether any image of the first shard is found. If none, the input may not be mounted, and listing it tells."""
    images = input_storage(input_uri)
    _, uris = next(manifest.read_range(ShardRange(shards.part, shards.shards[:1])))
    try:
        return any(images.exists(uri) for uri in uris)
    except (PermissionError, ValueError):
        return True  # about that image alone


def _extend_plan(manifest: Manifest, listing: list[ImageRef], shard_size: int) -> None:
    plan = manifest.extend_plan(listing, shard_size)
    if plan.changed:
        logger.warning("%d images changed since they were planned; they are labelled again.", plan.changed)
    if plan.removed:
        logger.warning("%d images are gone from the input; their masks no longer count.", plan.removed)


def _output_uri(output: str) -> str:
    """The output, absolute. `ray job submit` runs in a copy of the working directory that Ray deletes."""
    storage = Storage(output)
    if storage.local and not Path(output).is_absolute() and "runtime_resources" in Path.cwd().parts:
        raise ValueError(f"--output {output} would land in the job's temporary folder; give an absolute path or a URI.")
    return storage.uri


def _with_dtype(
    config: SegmenterConfig, options: LabelOptions, manifest: Manifest, join: Callable[[], None]
) -> SegmenterConfig:
    """The precision asked for, else that of the run to resume, else what suits the cluster."""
    if options.dtype is not None:
        dtype = options.dtype
    elif (recorded := manifest.recipe()) is not None:
        dtype = recorded["segmenter"]["model"]["dtype"]
    else:
        join()
        dtype = "bfloat16" if _num_gpus(options) else "float32"
    return replace(config, model=replace(config.model, dtype=dtype))


def _num_gpus(options: LabelOptions) -> float:
    return default_num_gpus() if options.num_gpus is None else options.num_gpus


def _label_pending(
    config: SegmenterConfig,
    options: LabelOptions,
    manifest: Manifest,
    pending: list[ShardRange],
    summary: Summary,
) -> None:
    """Run the graph over all pending shards. Notes in `summary` what failed, and why it stopped early, if it did."""
    num_gpus = _num_gpus(options)
    require_gpus(num_gpus, options.address)
    resources = actor_resources(num_gpus, options.concurrency)
    device = "cuda" if num_gpus else "cpu"
    worker = WorkerConfig(
        config,
        options.output,
        device,
        options.threads or max((os.cpu_count() or 1) // options.concurrency, 1),
        options.batch_windows,
        options.confidence_stride,
        options.image_timeout_s,
    )
    if not manifest.storage.exists(EMBEDDINGS_KEY):
        if num_gpus:
            embed = ray.remote(write_text_embeddings).options(**resources)
            summary.retries += ray.get(embed.remote(manifest.storage, config.model, device))
        else:  # a worker would first have to start
            summary.retries += write_text_embeddings(manifest.storage, config.model, device)

    totals = manifest.totals()
    done = totals.labelled + totals.failed
    allowed = allowed_failures(options.max_failures, totals.planned)
    compaction = Compaction(manifest.storage, manifest.committed())
    in_a_row = 0
    with contextlib.closing(compaction), RunProgress(totals.planned, done, totals.failed) as progress:
        for wave in waves(pending, SHARDS_PER_WAVE):
            for receipt in _receipts(worker, options, manifest, wave, resources):
                summary.retries += receipt["retries"]
                if receipt["error"] is not None:
                    summary.shard_errors[receipt["shard"]] = receipt["error"]
                    in_a_row += 1
                    if in_a_row == ERRORS_IN_A_ROW:
                        summary.stopped = f"{in_a_row} shards in a row failed, the last one by: {receipt['error']}"
                        return
                    continue
                in_a_row = 0
                compaction.add(receipt["shard"])
                progress.add(receipt["labelled"], receipt["failed"])
                if allowed is not None and progress.failed > allowed:
                    limit = f"--max-failures {options.max_failures} allows {allowed}"
                    summary.stopped = f"{progress.failed} images failed, {limit}"
                    return


def _receipts(
    worker: WorkerConfig,
    options: LabelOptions,
    manifest: Manifest,
    pending: list[ShardRange],
    resources: dict[str, float],
) -> Iterator[dict[str, Any]]:
    configure_data(verbose=options.verbose)
    shards = sum(part.num_shards for part in pending)
    per_task = min(max(shards // (TASKS_PER_ACTOR * options.concurrency), 1), SHARDS_PER_TASK)
    ranges = [shards for part in pending for shards in part.split(per_task)]
    source = ShardSource(options.input, options.output, ranges)
    writer = WriteShards(options.output, read_vocabulary(manifest.storage).class_names)
    dataset = label_graph(source, LabelShards, (worker, Starts()), writer, options.concurrency, resources)
    batches: Iterator[Any] = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
    for batch in batches:
        yield from batch.to_pylist()
