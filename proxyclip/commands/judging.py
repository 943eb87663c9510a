"""The verbs that score: evaluate, and benchmark (jobs/evaluate.py --benchmark)."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from proxyclip.pipeline.evaluate.options import BenchmarkOptions, EvaluateOptions

if TYPE_CHECKING:
    from proxyclip.pipeline.evaluate.run import Evaluated

SHOWN = 5


def evaluate(options: Annotated[EvaluateOptions, arg(name="")]) -> int:
    """Score the masks of an output against labels: mIoU, accuracies, boundary IoU, confusion, the worst images.

    Run the same command again to continue, or after the output or its labels have changed. Nothing is written into
    the labelled data. Exit codes: 0, every image is scored. 1, some shards could not be scored; the last lines say why.
    2, the command is wrong. 3, some images are not scored: they have no mask, or no label that fits.
    """
    from proxyclip.pipeline.evaluate.run import evaluate as run

    logging.basicConfig(format="%(levelname)s %(message)s")
    evaluated = run(options)
    _report(evaluated)
    return evaluated.exit_code


def benchmark(options: Annotated[BenchmarkOptions, arg(name="")]) -> int:
    """Label a benchmark from your own copy with the paper's settings, score it, and compare with the published mIoU.

    Run the same command again to continue. Exit codes: 0, the mIoU is within 0.7 of the published one, or none is
    published. 1, it is not, or the run did not finish. 2, the command is wrong, or files are missing. 3, some images
    are not in the figure: they have no mask, or no label that fits.
    """
    from proxyclip.commands.labelling import report_labelling
    from proxyclip.pipeline.evaluate.benchmark import AS_PUBLISHED, TOLERANCE, measure

    logging.basicConfig(format="%(levelname)s %(message)s")
    measured = measure(options)
    report_labelling(measured.labelled, options.output)
    for evaluated in (measured.evaluated or {}).values():
        _report(evaluated)
    if measured.num_images != measured.num_published:
        print(f"The published split has {measured.num_published} images, this copy {measured.num_images}.")
    for rule, evaluated in (measured.evaluated or {}).items():
        miou = evaluated.report.miou if evaluated.report else None
        published = measured.published if rule == AS_PUBLISHED else None
        print(f"{measured.benchmark}, {measured.preset}, ignore rule {rule}:")
        print(f"  measured mIoU   {_percent(miou)}")
        print(f"  published mIoU  {_percent(published)}")
        if rule == AS_PUBLISHED and measured.difference is not None:
            off = f", more than {TOLERANCE}" if measured.is_off else ""
            print(f"  difference      {measured.difference:+.2f}{off}")
    return measured.exit_code


def _report(evaluated: Evaluated) -> None:
    """Say what was measured, what was left out, and where the rest is."""
    from proxyclip.evaluation.report import REPORT
    from proxyclip.storage.store import public_uri

    for shard, error in sorted(evaluated.summary.errors.items()):
        print(f"Shard {shard} failed: {error}", file=sys.stderr)
    if evaluated.report is None:
        stopped = f"Stopped: {evaluated.summary.stopped}. " if evaluated.summary.stopped else ""
        print(f"{stopped}What is done is kept; run the same command again to continue.", file=sys.stderr)
        return
    fields = evaluated.report.fields
    if not fields["finished"]:
        print("The output is not finished; these are the figures of what is labelled so far.")
    print(f"{fields['num_images']} images scored (label values: {fields['rule']})")
    for name, key in (("mIoU", "miou"), ("aAcc", "aacc"), ("mAcc", "macc"), ("boundary IoU", "boundary_iou")):
        print(f"  {name:13} {_percent(fields[key])}")
    if zero_shot := fields["zero_shot"]:
        for name, key in (("mIoU, seen", "miou_seen"), ("unseen", "miou_unseen"), ("harmonic", "harmonic")):
            print(f"  {name:13} {_percent(zero_shot[key])}")
    unmatched = fields["unmatched"]
    for what, names in (
        ("Label names without a class (not scored)", list(unmatched["labels"].values())),
        ("Classes without a label (not in the means)", unmatched["classes"]),
    ):
        if names:
            more = f" and {len(names) - 20} more" if len(names) > 20 else ""
            print(f"{what}: {', '.join(names[:20])}{more}")
    for hint in unmatched["hints"][:SHOWN]:
        print(f"  {hint}")
    if fields["num_failed"]:
        print(f"{fields['num_failed']} images have no mask.")
    if fields["num_unscored"]:
        counts = ", ".join(f"{status} {count}" for status, count in fields["unscored"]["by_status"].items())
        print(f"{fields['num_unscored']} images are not scored ({counts}):")
        for image in fields["unscored"]["first"][:SHOWN]:
            print(f"  {image['uri']}: {image['reason']}")
    print(f"Report: {public_uri(evaluated.destination)}/{REPORT}")


def _percent(value: float | None) -> str:
    return "   -" if value is None else f"{value:6.2f}"
