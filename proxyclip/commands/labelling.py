"""The verbs that label: label, relabel, reprocess."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.relabel.options import RelabelOptions
from proxyclip.pipeline.reprocess.options import ReprocessOptions

if TYPE_CHECKING:
    from proxyclip.pipeline.run import Summary


def label(options: Annotated[LabelOptions, arg(name="")]) -> int:
    """Label every image below a folder or prefix with the classes of a vocabulary.

    Run the same command again to continue a run that stopped. Exit codes: 0, every image has a mask. 1, the run did
    not finish; the last lines say why. 2, the command is wrong. 3, the run finished, but some images failed; failures/
    lists them (with --max-failures this is 0).
    """
    from proxyclip.pipeline import run
    from proxyclip.pipeline.progress import log_json_lines

    if options.log_json:
        log_json_lines()
    else:
        logging.basicConfig(format="%(levelname)s %(message)s")
    summary = run.label(options)
    report_labelling(summary, options.output)
    return summary.exit_code


def relabel(options: Annotated[RelabelOptions, arg(name="")]) -> int:
    """Label a corpus with another vocabulary, from the features that `proxyclip label --keep-features` kept.

    No image is read (but for PAMR) and no vision network is loaded. Run the same command again to continue a run that
    stopped, or after the source has grown. Exit codes are those of `proxyclip label`; with several vocabularies, that
    of the worst.
    """
    from proxyclip.pipeline.relabel import run

    logging.basicConfig(format="%(levelname)s %(message)s")
    summaries = run.relabel(options)
    for output, summary in summaries.items():
        report_labelling(summary, output)
    codes = [summary.exit_code for summary in summaries.values()]
    return 1 if 1 in codes else max(codes)


def reprocess(options: Annotated[ReprocessOptions, arg(name="")]) -> int:
    """Bring the labels of a corpus up to date: label new images, with every vocabulary of a folder.

    Made to be run again and again by a scheduler. A run with nothing to do ends without starting Ray. Exit codes: 0,
    all is up to date. 1, something is not: the last lines name it. 2, the command is wrong. 3, all is up to date, but
    some images failed (with --max-failures this is 0).
    """
    from proxyclip.pipeline.reprocess import run
    from proxyclip.storage.store import public_uri

    logging.basicConfig(format="%(levelname)s %(message)s")
    done = run.reprocess(options)
    for line in done.errors():
        print(line, file=sys.stderr)
    for line in done.lines(public_uri(options.output.rstrip("/"))):
        print(line)
    return done.exit_code


def report_labelling(summary: Summary, output: str) -> None:
    """Say how a run ended, and where to look."""
    from proxyclip.storage.store import public_uri

    output = public_uri(output)
    if summary.images:  # else the output could not be read at the end
        print(f"{summary.labelled} of {summary.images} images labelled, {summary.failed} failed: {output}")
    if summary.retries:
        print(f"{summary.retries} storage requests were retried.")
    if summary.failed:
        print(f"The reasons are in {output}/failures/")
    for shard, error in sorted(summary.shard_errors.items()):
        print(f"Shard {shard} failed: {error}", file=sys.stderr)
    if summary.stopped:
        print(f"Stopped: {summary.stopped}. What is done is kept.", file=sys.stderr)
    if not summary.finished:
        left = summary.shards - summary.committed
        print(f"Shards not done: {left}; run the same command again to continue.", file=sys.stderr)
