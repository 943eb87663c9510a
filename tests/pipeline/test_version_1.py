"""An output of the first schema version, begun by an earlier proxyclip: it opens, verifies, resumes and relabels."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from labelling import files

from proxyclip import MaskDataset
from proxyclip.dataset.masks import mask_from_png
from proxyclip.dataset.upkeep.status import status
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.relabel.options import RelabelOptions
from proxyclip.pipeline.relabel.run import relabel
from proxyclip.pipeline.run import label
from proxyclip.storage.store import Storage

pytestmark = pytest.mark.usefixtures("s3", "one_cluster")  # in this order: the cluster's workers need the address

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "version_1"
PHOTOS, LABELS = "s3://version-1/photos", "s3://version-1/labels"
DEMO = ROOT / "proxyclip" / "demo"
