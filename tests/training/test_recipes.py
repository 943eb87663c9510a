"""The code of docs/training.md runs as it stands there, and gives the live samples and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from trainable import LIVE

from proxyclip.dataset.reading.labels import Labels
from proxyclip.pipeline.cluster.join import cluster
from proxyclip.storage.store import Storage

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"


def run_code(heading: str) -> dict[str, object]:
    """Run the code below a heading, in the current folder. Returns its names."""
    section = re.split(r"^#+ ", PAGE.read_text(), flags=re.MULTILINE)
    (code,) = re.findall(r"```python\n(.*?)```", next(each for each in section if each.startswith(heading)), re.DOTALL)
    names: dict[str, object] = {"__name__": "recipe"}
    exec(compile(code, f"{PAGE.name}: {heading}", "exec"), names)
    return names


@pytest.fixture(autouse=True)
def here(output, monkeypatch):
    monkeypatch.chdir(Path(output).parent)
    Storage(output).write("masks/000099-0123456789ab.parquet", b"of a killed run")


def test_the_loop_for_torch_gives_batches():
    batch = run_code("How do I train")["batch"]
    assert batch["image"].shape[1:] == (3, 224, 224)
    assert batch["mask"].shape == batch["confidence"].shape == (len(batch["uri"]), 224, 224)


def test_datasets_has_the_live_images_beside_their_masks(monkeypatch, tmp_path):
    pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    dataset = run_code("Hugging Face")["dataset"]
    assert sorted(dataset["uri"]) == LIVE
    for row in dataset:
        assert row["image"].size == row["mask"].size
        assert row["image"].getpixel((0, 0))[0] == int(row["uri"][:3])


def test_ray_data_gives_every_live_sample(output, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(PAGE.parents[1]))
    with cluster("local", verbose=False):
        names = run_code("Ray Data")
        assert names["samples"].count() == names["count"] == len(LIVE)
        batch = names["batch"]
        assert batch["image"].shape[1:] == (3, 224, 224)
    assert Labels.open(output).totals.labelled == len(LIVE)
