"""How results are printed: Markdown tables, under a line that says where and how they were measured."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Sequence
from pathlib import Path

Row = dict[str, str]


def markdown(rows: Sequence[Row]) -> str:
    """Rows with the same columns as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def heading(device: str | None = None) -> str:
    """The machine, its load, the date and the command. device: where networks run; None if none run here."""
    parts = [f"{os.cpu_count()} CPU cores", *_processor(), f"load {os.getloadavg()[0]:.1f}"]
    if device is not None:
        import torch

        parts += [f"{torch.get_num_threads()} threads", f"torch {torch.__version__}"]
        if device == "cuda":
            parts.insert(0, torch.cuda.get_device_name())
    return f"{', '.join(parts)}, {datetime.date.today()}: python {' '.join(sys.argv)}\n"


# Of /proc/cpuinfo, what decides which kernels run.
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "bf16", "i8mm")


def _processor() -> list[str]:
    """The processor's name and those of its features that matter here; nothing where /proc does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    has = set(fields.get("flags", fields.get("Features", "")).split())
    features = " ".join(name for name in _FEATURES if name in has)
    return [part for part in (fields.get("model name", ""), features) if part]


def show(device: str | None, title: str) -> None:
    """Print what is measured, and where."""
    print(heading(device), f"{title}\n", sep="\n", flush=True)


def print_table(rows: list[Row]) -> None:
    """Print rows as a Markdown table."""
    print(markdown(rows), "\n", flush=True)
