"""Train CLIP-RC, as `proxyclip train-cliprc` does: the script that `ray job submit` starts."""

from __future__ import annotations

import sys

from proxyclip.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("train-cliprc"))
