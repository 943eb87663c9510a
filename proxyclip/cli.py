"""The `proxyclip` command: one door to every verb."""

from __future__ import annotations

import sys
from collections.abc import Callable

import tyro
from tyro.conf import OmitArgPrefixes
from tyro.extras import SubcommandApp

from proxyclip.commands import adapting, calibrating, exporting, judging, labelling, looking, training, upkeep, weights
from proxyclip.commands.presets import presets

VERBS: dict[str, Callable[..., int]] = {
    "label": labelling.label,
    "relabel": labelling.relabel,
    "adapt": adapting.adapt,
    "select": adapting.select,
    "train-student": training.train_student,
    "train-cliprc": training.train_cliprc,
    "reprocess": labelling.reprocess,
    "evaluate": judging.evaluate,
    "benchmark": judging.benchmark,
    "calibrate": calibrating.calibrate,
    "preview": looking.preview,
    "gallery": looking.gallery,
    "export": exporting.export,
    "verify": upkeep.verify,
    "status": upkeep.status,
    "clean": upkeep.clean,
    "presets": presets,
    "fetch-weights": weights.fetch_weights,
}

app = SubcommandApp()
for _name, _verb in VERBS.items():
    app.command(name=_name)(_verb)


def run_command(command: Callable[[], int]) -> int:
    """The exit code of a command; 2 and a one-line error if it cannot run."""
    try:
        return command()
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. What is done is kept; run the same command again to continue.", file=sys.stderr)
        return 130


def main() -> None:
    """The console command."""
    description = "Label image corpora with any classes; look at the labels and look after them."
    sys.exit(run_command(lambda: app.cli(prog="proxyclip", description=description, config=(OmitArgPrefixes,))))


def run_job(verb: str) -> int:
    """What jobs/VERB.py runs: one verb as a command of its own."""
    return run_command(lambda: tyro.cli(VERBS[verb], config=(OmitArgPrefixes,)))


if __name__ == "__main__":
    main()
