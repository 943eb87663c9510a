"""The best masks in one command: label and keep features, learn a head from all of them, label again with it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from proxyclip.dataset.layout import HEAD
from proxyclip.dataset.run_record import RunRecord, read_run
from proxyclip.images.inputs.address import InputAddress
from proxyclip.pipeline import run as labelling
from proxyclip.pipeline.adapt import run as adapting
from proxyclip.pipeline.adapt.opening import open_adaptation
from proxyclip.pipeline.adapt.options import AdaptOptions
from proxyclip.pipeline.cluster.one_cluster import OneCluster
from proxyclip.pipeline.opening import open_run, output_uri
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.relabel import run as relabelling
from proxyclip.pipeline.relabel.opening import open_relabelling
from proxyclip.pipeline.relabel.options import RelabelOptions
from proxyclip.pipeline.run import Summary
from proxyclip.recipes.teachers import is_teacher
from proxyclip.storage.store import Storage, public_uri

# Radius of the guided filter, in patches (docs/quality.md).
GUIDED_RADIUS = 2


@dataclass(frozen=True)
class Passes:
    """The options of the three steps, with absolute addresses.

    The first pass and its features lie beside the output. The head is learned once: images that come later are
    labelled with the head that the output has, so that all its masks are of one recipe.
    """

    first: LabelOptions
    adapt: AdaptOptions
    second: RelabelOptions

    @classmethod
    def of(cls, options: LabelOptions) -> Passes:
        """The steps of a `proxyclip label --quality best`. Raises ValueError for options that do not go with it."""
        if options.method is not None and is_teacher(options.method):
            raise ValueError(
                f"--quality best learns from the features of CLIP, and --method {options.method} has none; leave out "
                "one of them."
            )
        source, output = InputAddress.parse(options.input).place, output_uri(options.output)
        if f"{output}/".startswith(f"{source}/"):
            raise ValueError(f"--output {options.output} is inside --input; --quality best needs one that is not.")
        first, head = f"{output}.first", f"{output}.head.safetensors"
        pamr_steps = options.pamr_steps or 0  # a preset's own PAMR gives way to the guided filter
        vocabulary = options.vocabulary or options.benchmark
        assert vocabulary is not None
        return cls(
            first=replace(
                options,
                output=first,
                quality="exact",
                keep_features=True,
                guided_radius=0,
                pamr_steps=0,
                presence=0.0,
                active=0,
                regions=None,
                ignore_below=0.0,
                thresholds=None,
            ),
            adapt=AdaptOptions(first, head, address=options.address, verbose=options.verbose),
            second=RelabelOptions(
                source=first,
                output=output,
                vocabulary=(vocabulary,),
                head=head,
                benchmark=options.benchmark,
                logit_scale=options.logit_scale,
                background_threshold=options.background_threshold,
                area_threshold=options.area_threshold,
                ignore_below=options.ignore_below,
                thresholds=() if options.thresholds is None else (options.thresholds,),
                pamr_steps=pamr_steps,
                guided_radius=options.guided_radius or (0 if pamr_steps else GUIDED_RADIUS),
                presence=options.presence,
                active=options.active,
                regions=options.regions,
                confidence_stride=options.confidence_stride,
                max_failures=options.max_failures,
                address=options.address,
                verbose=options.verbose,
            ),
        )


def label_best(options: LabelOptions) -> Summary:
    """Label a corpus twice, or go on. The summary is that of the step that did not end, or of the output.

    Raises what `open_run` and `open_relabelling` raise if it cannot start.
    """
    passes = Passes.of(options)
    second, recorded = passes.second, read_run(Storage(passes.second.output))
    if recorded is not None:
        _refuse_other_output(recorded, second)
        second = replace(second, head=f"{second.output}/{HEAD}")
        open_relabelling(second)  # so that another recipe is refused before the first pass
    with OneCluster(options.address, verbose=options.verbose) as run:
        first = labelling.execute(open_run(passes.first), run.labeller)
        if first.labelled == 0 and first.stopped is None and first.finished:
            first.stopped = "no image could be labelled, so there is nothing to learn from"
        if first.exit_code == 1:
            return first
        if recorded is None:
            learned = adapting.execute(open_adaptation(passes.adapt))
            if learned.head is None:
                why = learned.stopped or "; ".join(f"shard {at}: {error}" for at, error in learned.errors.items())
                first.stopped = f"no head could be learned from {public_uri(passes.first.output)}: {why}"
                return first
        (summary,) = relabelling.execute(open_relabelling(second), run.relabeller).values()
    return summary


def _refuse_other_output(recorded: RunRecord, second: RelabelOptions) -> None:
    if recorded.source != second.source or "head" not in recorded.recipe:
        raise ValueError(
            f"--output {public_uri(second.output)} is there already, and --quality best did not make it. Give another "
            "one, or label with the --quality that made it."
        )
