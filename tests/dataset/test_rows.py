"""One shape for a labelled image and one for a failure, through every table that holds them."""

from __future__ import annotations

import dataclasses

import pyarrow as pa
import pytest

from proxyclip.dataset.rows import (
    FAILURE_STRUCT,
    FAILURES,
    IMAGE_STRUCT,
    MASKS,
    Failure,
    LabelledImage,
    failures,
    failures_table,
    from_row,
    labelled_images,
    masks_table,
    to_row,
)

IMAGES = [
    LabelledImage("a/1.jpg", 4, 5, b"mask", b"confidence", [0, 2], [12, 3], [0.75, 0.5], 0.25, 5),
    LabelledImage("\u00fc.jpg", 1, 1, b"m", b"c", [], [], [], 0.0, 1),
]
FAILED = [Failure("b", "fetch", "fetch_failed", "gone")]


def test_images_and_failures_come_back_from_their_tables():
    assert labelled_images(masks_table(IMAGES)) == IMAGES
    assert failures(failures_table(FAILED)) == FAILED
    assert masks_table([]).schema == MASKS
    assert failures_table([]).schema == FAILURES


def test_rows_of_a_shard_as_one_value_give_the_same_table():
    row = {"images": [to_row(image) for image in IMAGES], "failures": [vars(failure) for failure in FAILED]}
    schema = pa.schema([("images", pa.list_(IMAGE_STRUCT)), ("failures", pa.list_(FAILURE_STRUCT))])
    (back,) = pa.Table.from_pylist([row], schema).to_pylist()
    assert schema.field("images").type.value_type.field("mask").type.field("bytes").type == pa.large_binary()  # > 2 GB
    assert masks_table([from_row(image) for image in back["images"]]).equals(masks_table(IMAGES))
    assert [Failure(**failure) for failure in back["failures"]] == FAILED


def test_confidences_have_the_stored_precision_everywhere():
    image = dataclasses.replace(IMAGES[0], class_confidence=[1 / 3, 2 / 3], mean_confidence=1 / 7)
    row = pa.Table.from_pylist([{"image": to_row(image)}], pa.schema([("image", IMAGE_STRUCT)])).to_pylist()[0]["image"]
    (stored,) = labelled_images(masks_table([image]))
    assert from_row(row) == stored
    assert stored.class_confidence == pytest.approx([1 / 3, 2 / 3], abs=1e-7)
    assert stored.class_confidence != [1 / 3, 2 / 3]


def test_an_images_fields_are_the_columns_of_its_schema():
    assert [field.name for field in dataclasses.fields(LabelledImage)] == MASKS.names
    assert [field.name for field in dataclasses.fields(Failure)] == FAILURES.names
