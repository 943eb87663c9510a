"""Real weights and photographs: the figure of an independent implementation, through the whole job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference import SHARED

from proxyclip.dataset.masks import decode_mask
from proxyclip.dataset.shards import read_masks
from proxyclip.dataset.store import Storage
from proxyclip.evaluation import ConfusionMatrix

REAL = SHARED / "real"
EXPECTED_MIOU = 41.55  # the figure that came with the photographs

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="the real weights and photographs are not here")


def test_the_job_reaches_the_known_miou_on_msrc(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted((REAL / "msrc16-dev" / "images").iterdir())[::8]:
        (images / path.name).symlink_to(path)
    run = subprocess.run(
        [
            sys.executable,
            Path(__file__).parents[1] / "jobs" / "label.py",
            f"--input={images}",
            f"--output={tmp_path / 'out'}",
            f"--vocabulary={REAL / 'msrc16.json'}",
            f"--embeddings={REAL / 'msrc16.embeddings.safetensors'}",
            f"--clip=local-dir:{REAL / 'clip-deit-tiny'}",
            "--proxy=deit_tiny_patch16_224",
            f"--proxy-weights={REAL / 'vfm-deit-tiny' / 'model.safetensors'}",
            "--shard-size=8",
        ],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    matrix = ConfusionMatrix(16)
    rows = list(read_masks(Storage(str(tmp_path / "out"))))
    assert len(rows) == 33
    for row in rows:
        label = np.asarray(Image.open(REAL / "msrc16-dev" / "labels" / Path(row.uri).with_suffix(".png").name))
        matrix.add(label, decode_mask(row.mask))
    assert matrix.mean_iou == pytest.approx(EXPECTED_MIOU, abs=0.5)
