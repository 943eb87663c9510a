"""The verbs that learn from labels: adapt."""

from __future__ import annotations

import sys
from typing import Annotated

from tyro.conf import arg

from proxyclip.pipeline.adapt.options import AdaptOptions


def adapt(options: Annotated[AdaptOptions, arg(name="")]) -> int:
    """Learn a head from a labelled corpus: better masks, without labels of people and without networks.

    Needs the features that `proxyclip label --keep-features` kept. Use the head with `proxyclip relabel --head` and
    `proxyclip label --head`. Run the same command again to continue one that stopped, or after the corpus has grown.
    Exit codes: 0, the head is written. 1, it is not; the last lines say why. 2, the command is wrong.
    """
    from proxyclip.pipeline.adapt import run
    from proxyclip.storage.store import public_uri

    summary = run.adapt(options)
    for shard, error in sorted(summary.errors.items()):
        print(f"Shard {shard} failed: {error}", file=sys.stderr)
    if summary.stopped:
        print(f"Stopped: {summary.stopped}.", file=sys.stderr)
    if summary.left:
        print(f"{summary.left} shards are not labelled yet; the head does not know them.", file=sys.stderr)
    if summary.head is None:
        print("There is no head. What is done is kept; run the same command again to continue.", file=sys.stderr)
        return summary.exit_code
    adapted = int(summary.head.adapted.sum())
    print(f"Learned {adapted} of {len(summary.head.adapted)} classes from {summary.images} images.")
    for remark in summary.remarks:
        print(remark)
    print(f"Head: {public_uri(options.output)}")
    return summary.exit_code
