"""`python jobs/performance` lists its parts, refuses a wrong checkout, and prints Markdown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from performance.tables import markdown

COMMAND = Path(__file__).resolve().parents[2] / "jobs" / "performance"


def run(*words):
    return subprocess.run([sys.executable, str(COMMAND), *words], capture_output=True, text=True, timeout=600)


def test_help_lists_the_parts():
    found = run("--help")
    assert found.returncode == 0, found.stderr
    parts = "engine decoding text pipeline scaling quality gallery loading resume plan scoring startup compare"
    for part in parts.split():
        assert f"• {part} " in found.stdout


def test_a_checkout_without_the_project_is_refused(tmp_path):
    found = run("compare", "--checkout", str(tmp_path))
    assert found.returncode != 0
    assert f"--checkout {tmp_path} has no jobs/label.py" in found.stderr
    assert not found.stdout


def test_rows_become_a_markdown_table():
    rows = [{"what": "one", "s": "1.0"}, {"what": "two", "s": "2.0"}]
    assert markdown(rows) == "| what | s |\n| --- | --- |\n| one | 1.0 |\n| two | 2.0 |"
