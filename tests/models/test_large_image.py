"""A very large photograph is labelled in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LARGE = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
import numpy as np
from tiny import random_vocabulary, tiny_segmenter

segmenter, vocabulary = tiny_segmenter(), random_vocabulary(5)
image = np.zeros((9000, 12000, 3), np.uint8)
image[:, 6000:] = 200
segmenter.predict(image[:50, :50], vocabulary)
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
result = segmenter.predict(image, vocabulary)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"shape": result.mask.shape, "seconds": seconds, "gigabytes": (peak - before) / 2**20}))
"""


@pytest.mark.slow
def test_a_photograph_of_100_megapixels_is_labelled_in_bounded_memory():
    """At most 24 bytes per pixel beyond the image; in a process of its own, so that the peak is its own."""
    output = subprocess.check_output([sys.executable, "-c", LARGE, str(Path(__file__).parents[1])], text=True)
    report = json.loads(output.splitlines()[-1])
    print(report)
    assert report["shape"] == [9000, 12000]
    assert report["gigabytes"] < 2.5
