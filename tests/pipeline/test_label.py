"""The actor that labels, without Ray: an image that memory does not take fails alone."""

from __future__ import annotations

import dataclasses
import io
import socket

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from tiny import WINDOWS, random_image, random_vocabulary, save_local_models

from proxyclip.config import ModelConfig, SegmenterConfig
from proxyclip.dataset.run_record import write_vocabulary
from proxyclip.models.segmenter import Segmenter
from proxyclip.pipeline.stages.actor import ActorConfig
from proxyclip.pipeline.stages.label import LabelShards
from proxyclip.pipeline.stages.read import SHARD_SCHEMA
from proxyclip.recipes.weights import weight_hashes
from proxyclip.storage.store import Storage

TOO_MUCH = 2**48  # bytes; more than any machine gives
WHITE = np.full((112, 112, 3), 255, np.uint8)


def encoded(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def shard(images: dict[str, np.ndarray | bytes | None]) -> pa.Table:
    data = [encoded(image) if isinstance(image, np.ndarray) else image for image in images.values()]
    errors = ["gone" if image is None else None for image in data]
    row = {"shard": 3, "uris": list(images), "data": data, "fetch_errors": errors, "retries": 0}
    empty = dict.fromkeys(SHARD_SCHEMA.names)
    return pa.Table.from_pylist([{**empty, **row}], SHARD_SCHEMA)


def by_uri(images: list[dict]) -> list[dict]:
    return sorted(images, key=lambda image: image["uri"])


@pytest.fixture
def config(tmp_path):
    output = Storage(str(tmp_path / "out"))
    write_vocabulary(output, random_vocabulary(5))
    clip, proxy = save_local_models(tmp_path)
    segmenter = SegmenterConfig(ModelConfig(clip=f"local-dir:{clip}", proxy=f"local-dir:{proxy}"), WINDOWS)
    return ActorConfig(
        segmenter=segmenter,
        weights=weight_hashes(segmenter.model),
        output=output.uri,
        device="cpu",
        threads=torch.get_num_threads(),
        batch_windows=8,
        confidence_stride=4,
        image_timeout_s=60,
    )


@pytest.fixture
def worker(config):
    made = LabelShards(config)
    yield made
    made.close()


def refuse_white(monkeypatch, stage):
    """Encoding or decoding a white image asks for more memory than there is."""
    encode, labels = Segmenter.encode_windows, Segmenter.labels

    def encode_windows(self, windows):
        if stage == "encode" and (windows == 1).all():
            torch.empty(TOO_MUCH, dtype=torch.uint8)
        return encode(self, windows)

    def labels_of_image(self, features, vocabulary):
        if stage == "decode" and (features.resized == 255).all():
            np.empty(TOO_MUCH, np.uint8)
        return labels(self, features, vocabulary)

    monkeypatch.setattr(Segmenter, "encode_windows", encode_windows)
    monkeypatch.setattr(Segmenter, "labels", labels_of_image)


@pytest.mark.parametrize("stage", ["encode", "decode"])
def test_an_image_that_memory_does_not_take_fails_and_its_neighbours_do_not(worker, monkeypatch, stage):
    images = {f"{seed}.png": random_image(112, 150, seed) for seed in range(5)}
    (undisturbed,) = worker(shard(images)).to_pylist()
    refuse_white(monkeypatch, stage)
    (row,) = worker(shard({"a.png": WHITE, **images, "z.png": WHITE})).to_pylist()
    assert row["error"] is None
    assert by_uri(row["images"]) == by_uri(undisturbed["images"])
    reason = "112 x 112 pixels need more memory than there is"
    wanted = {"stage": "segment", "status": "out_of_memory", "reason": reason}
    assert row["failures"] == [{"uri": "a.png", **wanted}, {"uri": "z.png", **wanted}]


def test_where_no_image_fits_the_shard_fails_and_not_its_images(worker, monkeypatch):
    refuse_white(monkeypatch, "encode")
    (row,) = worker(shard({"a.png": WHITE, "b.png": WHITE, "c.png": b"no image"})).to_pylist()
    assert (row["images"], row["failures"]) == ([], [])
    assert "none of the 2 images of the shard fits" in row["error"]


def test_what_is_fetched_decoded_or_neither_is_kept_apart(worker):
    (row,) = worker(shard({"a.png": None, "b.png": b"no image", "c.png": b"", "d.png": WHITE})).to_pylist()
    assert [image["uri"] for image in row["images"]] == ["d.png"]
    found = {failure["uri"]: (failure["stage"], failure["status"]) for failure in row["failures"]}
    assert found == {
        "a.png": ("fetch", "fetch_failed"),
        "b.png": ("decode", "decode_failed"),
        "c.png": ("decode", "empty"),
    }


def test_weights_that_are_not_those_of_the_run_fail_the_shard_and_name_machine_file_and_hashes(config):
    other = dataclasses.replace(config, weights={**config.weights, "proxy": "0" * 64})
    worker = LabelShards(other)
    for _ in range(2):
        (row,) = worker(shard({"a.png": WHITE})).to_pylist()
        assert (row["images"], row["failures"]) == ([], [])
        for word in (socket.gethostname(), "model.safetensors", "0" * 64, config.weights["proxy"]):
            assert word in row["error"]
    worker.close()
