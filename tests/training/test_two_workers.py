"""Trainings on two workers of Ray, killed with all that they have started, and resumed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from test_cliprc_training import corpus  # noqa: F401

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
ENV = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, TESTS, TESTS / "training")))}
MOST_MIOU = 0.3  # that a killed training may be away from an undisturbed one

CLIPRC = """
import sys
from pathlib import Path
import test_cliprc_training as made
from proxyclip.pipeline.cluster.join import cluster
from proxyclip.training.cliprc import run
from proxyclip.training.cliprc.opening import open_training
corpus = Path(sys.argv[1])
scored = {"score_images": str(corpus / "images"), "score_labels": str(corpus / "labels")}
opened = open_training(made.options(corpus, sys.argv[2], workers=2, batch=1, iterations=40, **scored))
with cluster("local", verbose=False):
    run.execute(opened, lambda _: None)
"""


def run(words: list[str]) -> None:
    subprocess.run([sys.executable, *words], env=ENV, check=True)


def run_and_kill(words: list[str], checkpoints: Path, least: int) -> None:
    """Run a training, and kill it and its cluster once so many steps are kept."""
    process = psutil.Popen([sys.executable, *words], env=ENV)
    while process.poll() is None and steps(checkpoints) < least:
        time.sleep(0.02)
    family = process.children(recursive=True)
    process.kill()
    for each in family:
        with contextlib.suppress(psutil.Error):
            each.kill()
    assert process.wait() == -signal.SIGKILL, "it must be killed before its end"


def steps(checkpoints: Path) -> int:
    """What the names of the checkpoints say."""
    return max((int(re.sub(r"\D", "", path.stem) or 0) for path in checkpoints.glob("*")), default=0)


@pytest.mark.slow
def test_a_student(output, tmp_path):
    words = [str(TESTS / "students.py"), output]
    run_and_kill([*words, str(tmp_path / "killed"), "40", "2"], tmp_path / "killed" / "checkpoints", 10)
    for name in ("killed", "whole"):
        run([*words, str(tmp_path / name), "40", "2"])
    killed, whole = (json.loads((tmp_path / name / "history.json").read_text())[-1] for name in ("killed", "whole"))
    assert killed["step"] == whole["step"] == 40
    assert abs(killed["miou"] - whole["miou"]) < MOST_MIOU


@pytest.mark.slow
def test_a_cliprc(corpus):  # noqa: F811
    words = ["-c", CLIPRC, str(corpus)]
    run_and_kill([*words, "killed"], corpus / "killed" / "state", 10)
    for name in ("killed", "whole"):
        run([*words, name])
    killed, whole = (json.loads((corpus / name / "scores.json").read_text()) for name in ("killed", "whole"))
    for name in ("miou_seen", "miou_unseen", "pixel_accuracy"):
        assert abs(killed[name] - whole[name]) < MOST_MIOU, name
