"""Progress as lines of JSON: one for every commit, one for every shard that fails."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

from proxyclip.pipeline.progress import CommitLog, JsonLines

CODE = """
import logging
from proxyclip.pipeline.progress import CommitLog, log_json_lines
log_json_lines()
with CommitLog(10, 2, 0) as progress:
    progress.add(3, 1, shard=7)
    progress.shard_failed(8, "StorageError: down")
logging.getLogger("proxyclip.images").warning("caf\u00e9 %d", 5)
logging.getLogger("other").info("not shown")
"""


def test_every_line_is_json():
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=True)
    lines = [json.loads(line) for line in ran.stderr.splitlines()]
    commit, failed, warning = lines
    assert commit["message"] == "commit"
    assert [commit[name] for name in ("shard", "labelled", "failed")] == [7, 3, 1]
    assert [commit[name] for name in ("images_done", "images_failed", "images_planned")] == [6, 1, 10]
    assert commit["images_per_s"] > 0
    assert (failed["level"], failed["shard"], failed["error"]) == ("error", 8, "StorageError: down")
    assert (warning["level"], warning["message"]) == ("warning", "caf\u00e9 5")
    assert all(line["time"].endswith("+00:00") for line in lines)


def test_an_error_keeps_its_traceback():
    try:
        raise ValueError("bad")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "stopped", (), sys.exc_info())
    found = json.loads(JsonLines().format(record))
    assert found["message"] == "stopped"
    assert "ValueError: bad" in found["traceback"]


def test_counts_go_on_from_earlier_runs():
    progress = CommitLog(10, 4, 1)
    progress.add(2, 1, shard=0)
    assert (progress.done, progress.failed) == (7, 2)
