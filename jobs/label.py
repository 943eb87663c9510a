"""Label a corpus: `python jobs/label.py --input URI --output URI --vocabulary voc21`."""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import TYPE_CHECKING

import tyro

from proxyclip.config import LabelOptions
from proxyclip.storage.entry import public_uri

if TYPE_CHECKING:
    from proxyclip.pipeline.run import Summary


def report(summary: Summary, options: LabelOptions) -> None:
    """Say how the run ended, and where to look."""
    output = public_uri(options.output)
    if summary.images:  # else the output could not be read at the end
        print(f"{summary.labelled} of {summary.images} images labelled, {summary.failed} failed: {output}")
    if summary.retries:
        print(f"{summary.retries} storage requests were retried.")
    if summary.failed:
        print(f"Why they failed: {output}/failures/")
    for shard, error in sorted(summary.shard_errors.items()):
        print(f"Shard {shard} failed: {error}", file=sys.stderr)
    if summary.stopped:
        print(f"Stopped: {summary.stopped}. What is done is kept.", file=sys.stderr)
    if not summary.finished:
        print(f"{summary.shards - summary.committed} shards are left; the same command goes on.", file=sys.stderr)


def run(options: LabelOptions) -> Summary:
    """`proxyclip.label`, with its imports beside the start of Ray; both take seconds, which --help need not wait."""
    from proxyclip.pipeline.cluster import cluster

    with ThreadPoolExecutor(1) as beside:
        module = beside.submit(import_module, "proxyclip.pipeline.run")
        with cluster(options.address, verbose=options.verbose):
            summary: Summary = module.result().label(options)
            return summary


def main() -> int:
    """Parse, label, report; the exit code of `LabelOptions`."""
    logging.basicConfig(format="%(levelname)s %(message)s")
    try:
        options = tyro.cli(LabelOptions)
        summary = run(options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. What is done is kept; the same command goes on.", file=sys.stderr)
        return 130
    report(summary, options)
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main())
