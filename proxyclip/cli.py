"""`proxyclip`: look after the output of a job. Labelling itself is jobs/label.py."""

from __future__ import annotations

import sys
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg
from tyro.extras import SubcommandApp

from proxyclip.dataset.clean import clean
from proxyclip.dataset.status import Status, status
from proxyclip.dataset.store import Storage
from proxyclip.dataset.verify import repair, verify

SHOWN_PROBLEMS = 20
SHOWN_REASONS = 10

app = SubcommandApp()

Output = Annotated[
    Positional[str], arg(metavar="OUT", help="The output of jobs/label.py: a folder or s3://BUCKET/PREFIX.")
]


@app.command(name="verify")
def _verify(
    output: Output,
    repair_: Annotated[FlagCreatePairsOff[bool], arg(name="repair")] = False,
) -> int:
    """Read everything that is committed again. Exit code: 0, all is whole; 1, something is broken.

    Checksums, rows and schemas; every planned image once in masks or failures; masks of the stated size and pixels
    per class; statistics that are the sums of the masks.

    Args:
        repair_: Drop the commits of broken shards, so that the next run labels them anew. Not while a job runs.
    """
    storage = _storage(output)
    report = verify(storage)
    for problem in report.problems[:SHOWN_PROBLEMS]:
        print(f"{problem.place}: {problem.what}")
    if len(report.problems) > SHOWN_PROBLEMS:
        print(f"... and {len(report.problems) - SHOWN_PROBLEMS} more")
    for line in report.unfinished:
        print(f"Not finished: {line}.")
    print(f"{report.shards} shards with {report.images} images read, {len(report.problems)} problems.")
    if report.problems and repair_:
        dropped = repair(storage, report)
        print(f"{len(dropped)} shards will be labelled anew: run the job again, with the same options as before.")
        if any(problem.place.startswith("plan") for problem in report.problems):
            print("The plan itself is broken and cannot be repaired: label to another output.")
    elif report.problems:
        print("`--repair` makes the next run label broken shards anew.")
    return 1 if report.problems else 0


@app.command(name="status")
def _status(output: Output) -> int:
    """How far a run is, from any machine and while it runs."""
    found = status(_storage(output))
    print(_described(found))
    for (kind, reason), count in found.failures.most_common(SHOWN_REASONS):
        print(f"{count:>8}  {kind}: {reason}")
    if len(found.failures) > SHOWN_REASONS:
        print(f"          and {len(found.failures) - SHOWN_REASONS} other reasons")
    return 0


@app.command(name="clean")
def _clean(
    output: Output,
    older_than_h: float = 24,
    dry_run: FlagCreatePairsOff[bool] = False,
) -> int:
    """Remove what killed writers have left: data files that no commit names, and temporary files.

    Args:
        older_than_h: Younger files are kept, since a running job may be writing them. Hours.
        dry_run: Only say what would be removed.
    """
    found = clean(_storage(output), older_than_h, dry_run=dry_run)
    verb = "would be removed" if dry_run else "removed"
    print(
        f"{len(found.orphans)} data files without a commit and {len(found.temporary)} temporary files {verb}, "
        f"{found.size_bytes:,} bytes."
    )
    return 0


def _storage(output: str) -> Storage:
    storage = Storage(output)
    if not storage.exists("run.json"):
        raise FileNotFoundError(f"{output}: no run.json found; the --output of jobs/label.py wanted.")
    return storage


def _described(found: Status) -> str:
    totals = found.totals
    if not totals.shards:
        return "Begun; nothing is planned yet."
    done = totals.labelled + totals.failed
    lines = [
        f"{done:,} of {totals.planned:,} images, {totals.committed:,} of {totals.shards:,} shards; "
        f"{totals.failed:,} images failed."
    ]
    if found.finished:
        lines.append("Finished.")
    elif found.last_commit_s is not None:
        rate = f"{found.images_per_s:.1f} images/s" if found.images_per_s else "rate not known yet"
        left = f", {_duration(found.left_s)} left" if found.left_s is not None else ""
        lines.append(f"Not finished: {rate}{left}; the last commit was {_duration(found.last_commit_s)} ago.")
    else:
        lines.append("Not finished: nothing is committed yet.")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    """A time as people say it, in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{count} {unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")) if count]
    return " ".join(parts[:2]) or "0 s"


def main() -> None:
    """The console command; exit code 2 where it cannot run."""
    try:
        code = app.cli(prog="proxyclip", description="Look after the output of a labelling job.")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    sys.exit(code)


if __name__ == "__main__":
    main()
