"""How fast the engine is here, against a plain implementation of the same equations: `python jobs/benchmark.py`."""

from __future__ import annotations

import datetime
import os
import sys

import torch
import tyro

from proxyclip.speed.engine import EngineOptions, Row, benchmark_decoding, benchmark_encoders


def markdown(rows: list[Row]) -> str:
    """Rows with the same columns as a table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    options = tyro.cli(EngineOptions, description=__doc__)
    cores = f"{os.cpu_count()} CPU cores, {torch.get_num_threads()} threads"
    machine = torch.cuda.get_device_name() if options.device == "cuda" else cores
    print(f"{machine}, torch {torch.__version__}, {datetime.date.today()}: python {' '.join(sys.argv)}\n")
    print(f"Image to labels, 500 x 375 pixels, 21 queries\n\n{markdown(benchmark_encoders(options))}\n")
    print(f"Labels from features, 500 x 375 pixels\n\n{markdown(benchmark_decoding(options))}")


if __name__ == "__main__":
    main()
