"""The `proxyclip` command: label a corpus, look at the result, look after it.

Each verb imports what it needs when it runs, so that --help is quick.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg
from tyro.extras import SubcommandApp

from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.relabel.options import RelabelOptions
from proxyclip.pipeline.reprocess.options import ReprocessOptions

if TYPE_CHECKING:
    from proxyclip.gallery.preview import PreviewOptions
    from proxyclip.pipeline.run import Summary
    from proxyclip.storage.store import Storage

SHOWN_PROBLEMS = 20
SHOWN_REASONS = 10

app = SubcommandApp()

Output = Annotated[
    Positional[str], arg(metavar="OUT", help="The --output of `proxyclip label`: a folder or s3://BUCKET/PREFIX.")
]


@app.command(name="label")
def label(options: Annotated[LabelOptions, arg(name="")]) -> int:
    """Label every image below a folder or prefix with the classes of a vocabulary.

    Run the same command again to continue a run that stopped. Exit codes: 0, every image has a mask. 1, the run did
    not finish; the last lines say why. 2, the command is wrong. 3, the run finished, but some images failed; failures/
    lists them (with --max-failures this is 0).
    """
    from proxyclip.pipeline import run

    logging.basicConfig(format="%(levelname)s %(message)s")
    summary = run.label(options)
    _report(summary, options.output)
    return summary.exit_code


@app.command(name="relabel")
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
        _report(summary, output)
    codes = [summary.exit_code for summary in summaries.values()]
    return 1 if 1 in codes else max(codes)


@app.command(name="reprocess")
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


@app.command(name="preview")
def preview(output: Output, limit: int = 24, sheet: int = 12) -> int:
    """Draw what a run has labelled so far: overlays and a contact sheet, in OUT/preview/.

    Args:
        limit: How many images to draw, from the first on.
        sheet: How many of them the contact sheet shows.
    """
    from proxyclip.gallery.preview import PreviewOptions

    return _draw(PreviewOptions(output, limit, sheet))


@app.command(name="verify")
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

    storage = _storage(output)
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


@app.command(name="status")
def status(output: Output) -> int:
    """Say how far a run is. Works from any machine, also while the run is going on."""
    from proxyclip.dataset.upkeep.status import status as ask
    from proxyclip.dataset.upkeep.status_text import status_text

    found = ask(_storage(output))
    print(status_text(found))
    for (kind, reason), count in found.failures.most_common(SHOWN_REASONS):
        print(f"{count:>8}  {kind}: {reason}")
    if len(found.failures) > SHOWN_REASONS:
        print(f"          and {len(found.failures) - SHOWN_REASONS} other reasons")
    return 0


@app.command(name="clean")
def clean(output: Output, older_than_h: float = 24, dry_run: FlagCreatePairsOff[bool] = False) -> int:
    """Remove what killed writers left: data files that no commit names, and temporary files.

    Args:
        older_than_h: Keep files that are younger than this many hours: a running job may be writing them.
        dry_run: Only say what would be removed.
    """
    from proxyclip.dataset.upkeep.clean import clean as remove

    found = remove(_storage(output), older_than_h, dry_run=dry_run)
    verb = "would be removed" if dry_run else "removed"
    print(
        f"{len(found.orphans)} data files without a commit and {len(found.temporary)} temporary files {verb}, "
        f"{found.size_bytes:,} bytes."
    )
    return 0


@app.command(name="presets")
def presets(like: Annotated[Positional[str], arg(metavar="[PART]")] = "") -> int:
    """List the presets: cost, licences of the weights, and published mIoU on each benchmark, in percent.

    The cost is counted on the networks, in GFLOP to encode an image of 500 x 375 pixels. Published figures hold at
    the benchmark's settings (--benchmark), which cost more for some.

    Args:
        like: Only list presets whose name contains this.
    """
    from proxyclip.recipes.benchmarks import BENCHMARKS
    from proxyclip.recipes.licences import forbids_commercial_use
    from proxyclip.recipes.presets import PRESETS, PUBLISHED_ON

    names = [name for name in PRESETS if like in name]
    if not names:
        raise ValueError(f"No preset has {like!r} in its name; `proxyclip presets` lists all.")
    from proxyclip.models.cost import gflop_per_image

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


def run_command(command: Callable[[], int]) -> int:
    """The exit code of a command; 2 and a one-line error if it cannot run."""
    try:
        return command()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. What is done is kept; run the same command again to continue.", file=sys.stderr)
        return 130


def main() -> None:
    """The console command."""
    description = "Label image corpora with any classes; look at the labels and look after them."
    sys.exit(run_command(lambda: app.cli(prog="proxyclip", description=description, config=(OmitArgPrefixes,))))


def label_job() -> int:
    """What jobs/label.py runs: the verb `label` as a command of its own."""
    return run_command(lambda: label(tyro.cli(LabelOptions)))


def relabel_job() -> int:
    """What jobs/relabel.py runs: the verb `relabel` as a command of its own."""
    return run_command(lambda: relabel(tyro.cli(RelabelOptions)))


def reprocess_job() -> int:
    """What jobs/reprocess.py runs: the verb `reprocess` as a command of its own."""
    return run_command(lambda: reprocess(tyro.cli(ReprocessOptions)))


def preview_job() -> int:
    """What jobs/preview.py runs: the verb `preview` as a command of its own."""
    from proxyclip.gallery.preview import PreviewOptions

    return run_command(lambda: _draw(tyro.cli(PreviewOptions)))


def _draw(options: PreviewOptions) -> int:
    from proxyclip.dataset.layout import CLASS_STATS
    from proxyclip.gallery.preview import preview as draw

    keys = draw(options)
    output = options.output.rstrip("/")
    print(f"Masks and confidence (Parquet): {output}/masks/")
    print(f"Statistics per class:           {output}/{CLASS_STATS}")
    print(f"Overlays, {len(keys) - 1} pictures:          {output}/preview/")
    print(f"Contact sheet:                  {output}/{keys[-1]}")
    return 0


def _report(summary: Summary, output: str) -> None:
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


def _storage(output: str) -> Storage:
    from proxyclip.dataset.run_record import require_run
    from proxyclip.storage.store import Storage

    storage = Storage(output)
    require_run(storage)
    return storage


if __name__ == "__main__":
    main()
