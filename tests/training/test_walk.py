"""docs/from_words_to_a_student.md: its commands, as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "from_words_to_a_student.md"
DEADLINE_S = 1800


@pytest.mark.slow
def test_the_walk_ends_in_a_student_that_has_learned(tmp_path):
    (tmp_path / "proxyclip").mkdir()
    (tmp_path / "proxyclip" / "demo").symlink_to(ROOT / "proxyclip" / "demo")
    (walk,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-e", "-c", walk], cwd=tmp_path, env=env, check=True, timeout=DEADLINE_S)
    scores = json.loads((tmp_path / "walk" / "by-student" / "evaluation" / "evaluation.json").read_text())
    assert scores["miou"] > 30
    assert (tmp_path / "walk" / "labels" / "gallery" / "index.html").exists()
