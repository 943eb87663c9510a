"""`proxyclip`: see what there is to label with, and look after the output of a job. Labelling is jobs/label.py."""

from __future__ import annotations

import sys
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg
from tyro.extras import SubcommandApp

from proxyclip.dataset.upkeep.clean import clean
from proxyclip.dataset.upkeep.status import Status, status
from proxyclip.dataset.upkeep.verify import repair, verify
from proxyclip.recipes.benchmarks import BENCHMARKS
from proxyclip.recipes.licences import forbids_commercial_use
from proxyclip.recipes.presets import PRESETS, PUBLISHED_ON
from proxyclip.storage.store import Storage

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


@app.command(name="presets")
def _presets(like: Annotated[Positional[str], arg(metavar="[PART]")] = "") -> int:
    """List the presets: cost, licences of the weights, and published mIoU on each benchmark in percent.

    Cost is counted on the networks, in GFLOP to encode an image of 500 x 375 pixels. Published figures hold at the
    benchmark's settings (`--benchmark`), which cost more for some.

    Args:
        like: Only presets whose names hold this.
    """
    from proxyclip.models.cost import gflop_per_image  # torch takes seconds that the other commands need not wait

    names = [name for name in PRESETS if like in name]
    if not names:
        raise ValueError(f"no preset has {like!r} in its name; `proxyclip presets` lists all.")
    width = max(map(len, names))
    shown = " ".join(f"{BENCHMARKS[name]:>11}" for name in PUBLISHED_ON)
    print(f"{'preset':{width}} {'GFLOP':>6} {shown}  licences of the weights")
    for name in names:
        chosen = PRESETS[name]
        figures = " ".join(f"{chosen.published_miou.get(benchmark, ''):>11}" for benchmark in PUBLISHED_ON)
        licences = ", ".join(
            f"{part} {licence}{' (not for commercial use)' if forbids_commercial_use(licence) else ''}"
            for part, licence in chosen.licences.items()
        )
        print(f"{name:{width}} {gflop_per_image(chosen.config):6.0f} {figures}  {licences}", flush=True)
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
        code = app.cli(prog="proxyclip", description="List presets; look after the output of a job.")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    sys.exit(code)


if __name__ == "__main__":
    main()
