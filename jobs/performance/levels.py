"""The engine with fewer of this processor's instructions, beside torch's own kernels: as on older processors."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from performance.engine import DecodingCase
from performance.seeded import seeded_clip, seeded_proxy
from performance.tables import Row
from proxyclip.config import Dtype, SegmenterConfig
from proxyclip.models.kernels.precision import speed_of
from proxyclip.models.segmenter import Segmenter

# What oneDNN, torch and MKL may use, by the processors that have no more.
LEVELS: dict[str, dict[str, str]] = {
    "all of this processor": {},
    "AVX512 and VNNI, no bfloat16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"},
    "AVX512 alone": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "SSE4": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
}

_QUERIES = 847


def measure_levels(rounds: int) -> list[Row]:
    """One row a level, each measured in a process of its own."""
    rows = []
    for name, variables in LEVELS.items():
        command = [sys.executable, "-m", "performance.levels", str(rounds)]
        ran = subprocess.run(command, env=_environment(variables), stdout=subprocess.PIPE, text=True, check=True)
        rows.append({"instructions": name, **json.loads(ran.stdout.splitlines()[-1])})
    return rows


def _environment(variables: dict[str, str]) -> dict[str, str]:
    return os.environ | variables | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def measure_here(rounds: int) -> Row:
    """The columns of a row, for this process: ratios of medians, each measured by turns."""
    window = torch.rand(1, 3, 336, 336)
    ours = Segmenter(seeded_clip(), seeded_proxy(), SegmenterConfig())
    torchs = Segmenter(seeded_clip(), seeded_proxy(), SegmenterConfig())
    torchs._kernels = contextlib.nullcontext()
    case = DecodingCase(_QUERIES, "cpu")
    with torch.inference_mode():
        networks = _by_turns(lambda: torchs.encode_windows(window), lambda: ours.encode_windows(window), rounds)
        decoding = _by_turns(case.plain, case.engine, rounds)
    dtypes: tuple[Dtype, ...] = ("bfloat16", "int8")
    return {
        "torch's kernels, s a window": f"{networks[0]:.2f}",
        "ours": f"{networks[1]:.2f}",
        "times faster": f"{networks[0] / networks[1]:.2f}",
        **{f"a layer in {dtype}, to float32": f"{speed_of(dtype):.2f}" for dtype in dtypes},
        f"decoding, {_QUERIES} queries, plain s": f"{decoding[0]:.2f}",
        "engine s": f"{decoding[1]:.2f}",
        "faster": f"{decoding[0] / decoding[1]:.1f}",
    }


def _by_turns(one: Callable[[], object], other: Callable[[], object], rounds: int) -> tuple[float, float]:
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for work, found in zip((one, other), times, strict=True):
            started = time.perf_counter()
            work()
            if number:  # the first packs the weights
                found.append(time.perf_counter() - started)
    return statistics.median(times[0]), statistics.median(times[1])


if __name__ == "__main__":
    print(json.dumps(measure_here(int(sys.argv[1]))))
