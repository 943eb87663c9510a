"""Which precision a CPU gets: what is asked for, unless float32 is faster."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from proxyclip.models.kernels import precision
from proxyclip.models.kernels.precision import cpu_dtype


@pytest.mark.parametrize(
    ("asked", "force", "speed", "wanted"),
    [
        ("float32", False, 0.1, "float32"),
        ("bfloat16", False, 0.3, "float32"),
        ("bfloat16", False, 1.8, "bfloat16"),
        ("bfloat16", True, 0.3, "bfloat16"),
        ("float16", False, 0.9, "float32"),
    ],
)
def test_what_is_slower_than_float32_is_replaced_unless_forced(asked, force, speed, wanted, monkeypatch, caplog):
    monkeypatch.setattr(precision, "speed_of", lambda dtype: speed)
    assert cpu_dtype(asked, force=force) == wanted
    assert ("--force-dtype" in caplog.text) == (asked != wanted)


def test_a_processor_without_bfloat16_is_found_by_measuring():
    """oneDNN is told to use no instructions beyond AVX2, where it has no bfloat16."""
    code = "from proxyclip.models.kernels.precision import cpu_dtype; print(cpu_dtype('bfloat16', force=False))"
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    assert ran.stdout == "float32\n", ran.stderr
    assert "times slower than float32" in ran.stderr
