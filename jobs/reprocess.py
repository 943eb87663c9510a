"""Bring the labels of a corpus up to date, as `proxyclip reprocess` does: the script that a scheduler starts."""

from __future__ import annotations

import sys

from proxyclip.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("reprocess"))
