"""The verbs that look after an output: verify, status, clean."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

from tyro.conf import FlagCreatePairsOff, arg

from proxyclip.commands.places import Output, run_storage

if TYPE_CHECKING:
    from proxyclip.dataset.upkeep.status import Status

SHOWN_PROBLEMS = 20
SHOWN_REASONS = 10


def verify(output: Output, repair_: Annotated[FlagCreatePairsOff[bool], arg(name="repair")] = False) -> int:
    """Read everything that is committed again. Exit code: 0 if all is whole, 1 if something is broken.

    Checks checksums, rows and schemas; that every planned image is once in masks or failures; that masks have the
    stated size and pixels per class; that statistics are the sums of the masks; that stored features belong to the
    planned version of each image. An unfinished output is not an error.

    Args:
        repair_: Drop the commits of broken shards, so that the next run labels these shards again, and with
            --add-features makes broken features again. Use it only while no job runs.
    """
    from proxyclip.dataset.upkeep.verify import repair
    from proxyclip.dataset.upkeep.verify import verify as read_again

    storage = run_storage(output)
    report = read_again(storage)
    for problem in report.problems[:SHOWN_PROBLEMS]:
        print(f"{problem.place}: {problem.what}")
    if len(report.problems) > SHOWN_PROBLEMS:
        print(f"... and {len(report.problems) - SHOWN_PROBLEMS} more")
    for line in report.unfinished:
        print(f"Not finished: {line}.")
    also = f" and the features of {report.feature_shards} shards" if report.feature_shards else ""
    print(f"{report.shards} shards with {report.images} images{also} read, {len(report.problems)} problems.")
    features = [problem.features for problem in report.problems]
    if report.problems and repair_:
        dropped = repair(storage, report)
        if not all(features):
            print(f"{len(dropped)} shards will be labelled again: run the job again with the same options.")
        if any(features):
            print("To make broken features again, run the labelling command with --add-features.")
        if any(problem.place.startswith("plan") for problem in report.problems):
            print("The plan itself is broken and cannot be repaired: label to another output.")
    elif report.problems:
        again = "with --add-features makes broken features" if all(features) else "labels broken shards"
        print(f"With --repair, the next run {again} again.")
    return 1 if report.problems else 0


def status(
    output: Output,
    json: FlagCreatePairsOff[bool] = False,
    watch: FlagCreatePairsOff[bool] = False,
    every_s: float = 10,
) -> int:
    """Say how far a run is. Works from any machine, also while the run is going on.

    Args:
        json: One line of JSON instead of words.
        watch: Say it again and again until the run is finished. Ctrl-C ends it.
        every_s: Seconds between two times with --watch.
    """
    from proxyclip.dataset.upkeep.status import status as ask
    from proxyclip.dataset.upkeep.status_text import status_json

    if every_s <= 0:
        raise ValueError(f"--every-s is {every_s}; it must be above 0.")
    storage = run_storage(output)
    while True:
        found = ask(storage)
        if json:
            print(status_json(found), flush=True)
        else:
            _say(found)
        if not watch or found.finished:
            return 0
        try:
            time.sleep(every_s)
        except KeyboardInterrupt:
            return 0


def _say(found: Status) -> None:
    from proxyclip.dataset.upkeep.status_text import status_text

    print(status_text(found))
    for (kind, reason), count in found.failures.most_common(SHOWN_REASONS):
        print(f"{count:>8}  {kind}: {reason}")
    if len(found.failures) > SHOWN_REASONS:
        print(f"          and {len(found.failures) - SHOWN_REASONS} other reasons")
    sys.stdout.flush()


def clean(output: Output, older_than_h: float = 24, dry_run: FlagCreatePairsOff[bool] = False) -> int:
    """Remove what killed writers left: data files that no commit names, and temporary files.

    Args:
        older_than_h: Keep files that are younger than this many hours: a running job may be writing them.
        dry_run: Only say what would be removed.
    """
    from proxyclip.dataset.upkeep.clean import clean as remove

    found = remove(run_storage(output), older_than_h, dry_run=dry_run)
    verb = "would be removed" if dry_run else "removed"
    print(
        f"{len(found.orphans)} data files without a commit and {len(found.temporary)} temporary files {verb}, "
        f"{found.size_bytes:,} bytes."
    )
    return 0
