"""The verbs that learn from labels, and ask for some: adapt, select."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

from tyro.conf import arg

from proxyclip.pipeline.adapt.options import AdaptOptions
from proxyclip.pipeline.select.options import SelectOptions


def adapt(options: Annotated[AdaptOptions, arg(name="")]) -> int:
    """Learn a head from a labelled corpus: better masks, without networks, and without labels of people or with some.

    Needs the features that `proxyclip label --keep-features` kept, or the sums of its --collect-statistics. Use the
    head with `proxyclip relabel --head` and `proxyclip label --head`. Run the same command again to continue one that
    stopped, or after the corpus has grown.
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
        print(
            f"{summary.left} shards are not labelled yet, or without statistics; the head does not know them.",
            file=sys.stderr,
        )
    if summary.head is None:
        print("There is no head. What is done is kept; run the same command again to continue.", file=sys.stderr)
        return summary.exit_code
    if summary.marked:
        print(f"The labels of {summary.marked} images count as certain.")
    if summary.waiting:
        print(f"{summary.waiting} of the labelled images have no mask yet; the head does not know their labels.")
    adapted = int(summary.head.adapted.sum())
    print(f"Learned {adapted} of {len(summary.head.adapted)} classes from {summary.images} images.")
    for remark in summary.remarks:
        print(remark)
    print(f"Head: {public_uri(options.output)}")
    return summary.exit_code


def select(options: Annotated[SelectOptions, arg(name="")]) -> int:
    """Choose the images of an output whose labels by a person would teach most: OUTPUT/selected.csv.

    The last lines are commands that show them, and that hand them to a labelling tool. Exit codes: 0, done. 1, the
    images could not all be looked at; the last lines say why. 2, the command is wrong.
    """
    from proxyclip.pipeline.select import run
    from proxyclip.storage.store import public_uri

    done = run.select(options)
    for shard, error in sorted(done.work.errors.items()):
        print(f"Shard {shard} failed: {error}", file=sys.stderr)
    if done.work.stopped:
        print(f"Stopped: {done.work.stopped}", file=sys.stderr)
    if not done.work.finished:
        print("Nothing is chosen. Run the same command again to continue; what is done is kept.", file=sys.stderr)
        return 1
    if done.left:
        print(f"{done.left} shards are not labelled yet; their images were not considered.", file=sys.stderr)
    to = public_uri(options.output.rstrip("/"))
    found = f"{to}/{run.LIST}"
    print(f"Chose {len(done.chosen)} of {done.num_images} images: {found}")
    limit = [] if len(done.chosen) <= 1000 else ["--limit", str(len(done.chosen))]
    print("Look at them, or correct them in a labelling tool (Label Studio: --to label-studio):")
    source = public_uri(options.source)
    print(f"  {shlex.join(['proxyclip', 'gallery', source, '--only', found, '--to', f'{to}/gallery', *limit])}")
    task = ["proxyclip", "export", source, "--to", "cvat", "--only", found, f"{to}/cvat"]
    print(f"  {shlex.join(task)}")
    return 0
