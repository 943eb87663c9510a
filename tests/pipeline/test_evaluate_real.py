"""Real weights and photographs, labelled by the job and scored by `proxyclip evaluate`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from labelling import ROOT
from reference import SHARED

REAL = SHARED / "real"
# Of an independent implementation; they came with the photographs.
EXPECTED_MIOU = {
    "maskclip": 32.74,
    "clip": 2.21,
    "clearclip": 42.54,
    "sclip": 11.46,
    "naclip": 34.60,
    "proxyclip": 41.55,
}

pytestmark = [
    pytest.mark.slow,  # the same masks made in this process are scored in tests/models/test_real.py
    pytest.mark.skipif(not REAL.is_dir(), reason="the real weights and photographs are not here"),
]


@pytest.mark.parametrize("method", EXPECTED_MIOU)
def test_the_known_miou_of_33_photographs(method, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((REAL / "msrc16-dev" / "images").iterdir())[::8]:
        (images / path.name).symlink_to(path)
    proxy = REAL / "vfm-deit-tiny" / "model.safetensors"
    chosen = ["--proxy=deit_tiny_patch16_224", f"--proxy-weights={proxy}"] if method == "proxyclip" else []
    label = [
        f"--input={images}",
        f"--output={tmp_path / 'out'}",
        f"--vocabulary={REAL / 'msrc16.json'}",
        f"--embeddings={REAL / 'msrc16.embeddings.safetensors'}",
        f"--clip=local-dir:{REAL / 'clip-deit-tiny'}",
        f"--method={method}",
        *chosen,
    ]
    for job, words in (
        ("label", label),
        ("evaluate", [str(tmp_path / "out"), f"--labels={REAL / 'msrc16-dev' / 'labels'}"]),
    ):
        found = subprocess.run([sys.executable, ROOT / "jobs" / f"{job}.py", *words], capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
    report = json.loads((tmp_path / "out" / "evaluation" / "evaluation.json").read_text())
    assert report["num_images"] == 33
    assert report["miou"] == pytest.approx(EXPECTED_MIOU[method], abs=0.5)
    assert f"mIoU          {report['miou']:6.2f}" in found.stdout
