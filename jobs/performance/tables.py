"""How results are printed: Markdown tables, under a line that says where and how they were measured."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Sequence

Row = dict[str, str]


def markdown(rows: Sequence[Row]) -> str:
    """Rows with the same columns as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def heading(device: str | None = None) -> str:
    """The machine, the date and the command. device: where networks run; None for parts that run none here."""
    parts = [f"{os.cpu_count()} CPU cores"]
    if device is not None:
        import torch

        parts += [f"{torch.get_num_threads()} threads", f"torch {torch.__version__}"]
        if device == "cuda":
            parts.insert(0, torch.cuda.get_device_name())
    return f"{', '.join(parts)}, {datetime.date.today()}: python {' '.join(sys.argv)}\n"


def show(device: str | None, title: str) -> None:
    """Print what is measured, and where."""
    print(heading(device), f"{title}\n", sep="\n", flush=True)


def print_table(rows: list[Row]) -> None:
    """Print rows as a Markdown table."""
    print(markdown(rows), "\n", flush=True)
