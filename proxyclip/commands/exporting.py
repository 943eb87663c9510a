"""The verb that writes labels in other formats: export."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

from tyro.conf import arg

from proxyclip.export.options import ExportOptions


def export(options: Annotated[ExportOptions, arg(name="")]) -> int:
    """Write the labels of an output in a format that other tools read; docs/export.md says what each one holds.

    Run the same command again to continue an export that stopped, or to add what was labelled since. Exit codes: 0,
    all labels are exported. 1, the export did not finish; the last lines say why. 2, the command is wrong. 3, it
    finished, but some images cannot be exported; DEST/failures.jsonl lists them.
    """
    from proxyclip.pipeline.export import run
    from proxyclip.storage.store import public_uri

    logging.basicConfig(format="%(levelname)s %(message)s")
    done = run.export(options)
    destination = public_uri(options.destination.rstrip("/"))
    if done.work.finished:
        print(f"{done.exported} images exported as {options.to}: {destination}")
    if done.left_out:
        print(f"{done.left_out} images left out: their mean confidence is below {options.min_confidence_image}.")
    if done.failed:
        print(f"{done.failed} images cannot be exported: {destination}/{run.FAILURES} says why.")
    if done.shards_not_labelled:
        print(
            f"The labels are not finished: {done.shards_not_labelled} shards are missing. Run the same command again "
            "when they are there."
        )
    for shard, error in sorted(done.work.errors.items()):
        print(f"Shard {shard} failed: {error}", file=sys.stderr)
    if done.work.stopped:
        print(f"Stopped: {done.work.stopped}", file=sys.stderr)
    if not done.work.finished:
        print("Run the same command again to continue; what is done is kept.", file=sys.stderr)
    return done.exit_code
