"""Label a corpus, as `proxyclip label` does: the script that `ray job submit` starts."""

from __future__ import annotations

import sys

from proxyclip.cli import label_job

if __name__ == "__main__":
    sys.exit(label_job())
