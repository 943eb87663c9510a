"""Score masks, as `proxyclip evaluate` does; with --benchmark, label and score a benchmark."""

from __future__ import annotations

import sys

from proxyclip.cli import run_job

if __name__ == "__main__":
    on_benchmark = any(word.split("=")[0] == "--benchmark" for word in sys.argv[1:])
    sys.exit(run_job("benchmark" if on_benchmark else "evaluate"))
