import os, dataclasses, shutil
from pathlib import Path
import numpy as np
import pytest
from PIL import Image
from proxyclip.demo.scenes import draw_scene, SAMPLE_SEEDS
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.run import label
from proxyclip.storage.store import Storage
import fsspec

ROOT = Path(__file__).resolve().parents[2]

@pytest.mark.usefixtures("s3", "one_cluster")
def test_make(s3, tmp_path):
    to = ROOT / "tests" / "version_1"
    (to / "photos").mkdir(exist_ok=True)
    for i in range(5):
        scene = draw_scene(SAMPLE_SEEDS.start + 500 + i, ((96, 128), (128, 96))[i % 2])
        Image.fromarray(scene.image).save(to / "photos" / f"scene-{i}.jpg", quality=85)
    (to / "photos" / "broken.jpg").write_bytes((to / "photos" / "scene-0.jpg").read_bytes()[:300])
    photos = s3.uri("version-1/photos"); labels = "s3://version-1/labels"
    for p in (to / "photos").iterdir():
        Storage(photos).write(p.name, p.read_bytes())
    outcome = label(LabelOptions(input=photos, output=labels, vocabulary=str(ROOT / "proxyclip/demo/vocabulary.json"), preset="demo", shard_size=2, short_side=112, crop=112, stride=56, keep_features=True, threads=1))
    print(outcome)
    fs = fsspec.filesystem("s3", endpoint_url=s3.endpoint, use_listings_cache=False)
    shutil.rmtree(to / "labels", ignore_errors=True)
    for key in fs.find("version-1/labels"):
        path = to / "labels" / key.removeprefix("version-1/labels/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(fs.cat_file(key))
        print(key, path.stat().st_size)
