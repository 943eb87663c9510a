"""run.json and the vocabulary beside it: written once, and another run refused with what differs."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import safetensors.torch
import torch

from proxyclip.config import SegmenterConfig, fingerprint, recipe_fields
from proxyclip.dataset.layout import EMBEDDINGS, RUN, VOCABULARY
from proxyclip.dataset.run_record import (
    RecipeMismatch,
    RunRecord,
    begin_run,
    has_embeddings,
    read_names,
    read_run,
    read_vocabulary,
    refuse_another_run,
    require_run,
    write_embeddings,
    write_vocabulary,
)
from proxyclip.vocabulary.names import Vocabulary

NAMES = Vocabulary.from_names(["sky", "tree"], name="ours")


def record(vocabulary=NAMES, input_uri="/data", **segmenter):
    """The record of a run, with some fields of its recipe's segmenter replaced: windows__crop=0."""
    fields = json.loads(json.dumps(recipe_fields(SegmenterConfig())))
    for path, value in segmenter.items():
        part, name = path.split("__")
        fields[part][name] = value
    recipe = {
        "version": 1,
        "segmenter": fields,
        "weights": {"clip": "c" * 64, "proxy": "d" * 64},
        "vocabulary": vocabulary.fingerprint,
        "confidence_stride": 4,
    }
    return RunRecord(input_uri, recipe, fingerprint(recipe), {"torch": "1"})


def begin(storage, run, vocabulary=NAMES):
    begin_run(storage, run, vocabulary.to_json())


def differences(storage, run, vocabulary=NAMES):
    with pytest.raises(RecipeMismatch) as caught:
        refuse_another_run(storage, run, vocabulary)
    assert all(line in str(caught.value) for line in caught.value.differences)
    assert "another --output" in str(caught.value)
    return caught.value.differences


def test_the_bytes_of_run_json_are_those_of_the_first_version(disk):
    begin(disk, RunRecord("/dätä/", {"b": [1, 2], "a": {"x": 0.5}}, "f1", {"torch": "1"}))
    assert disk.read(RUN).decode() == (
        '{\n "fingerprint": "f1",\n "input": "/dätä",\n "packages": {\n  "torch": "1"\n },\n "recipe": {\n'
        '  "a": {\n   "x": 0.5\n  },\n  "b": [\n   1,\n   2\n  ]\n },\n "schema_version": 1\n}\n'
    )


def test_the_same_run_begins_again_and_writes_nothing(storage):
    assert read_run(storage) is None
    begin(storage, record())
    before = {entry.key: storage.read(entry.key) for entry in storage.list()}
    begin(storage, dataclasses.replace(record(input_uri="/data/"), packages={"torch": "2"}))
    assert {entry.key: storage.read(entry.key) for entry in storage.list()} == before
    assert read_run(storage) == require_run(storage) == record()


def test_where_no_run_was_begun_none_is_read_and_none_refused(disk):
    refuse_another_run(disk, record(), NAMES)
    with pytest.raises(FileNotFoundError, match=r"there is no run\.json; give the --output"):
        require_run(disk)


def test_a_run_that_was_killed_before_its_vocabulary_was_written_goes_on(disk):
    begin(disk, record())
    vocabulary = disk.read(VOCABULARY)
    disk.delete(VOCABULARY)
    begin(disk, record())
    assert disk.read(VOCABULARY) == vocabulary


def test_settings_that_differ_are_named_as_the_options_that_set_them(disk):
    begin(disk, record())
    other = record(input_uri="s3://elsewhere/data", windows__short_side=448, decode__pamr_dilations=[8])
    other.recipe["weights"]["clip"] = "e" * 64
    assert differences(disk, other) == (
        "--input: this run has 's3://elsewhere/data', the output was made with '/data'",
        "segmenter.decode.pamr_dilations: this run has [8], the output was made with [8, 16]",
        "--short-side: this run has 448, the output was made with 336",
        f"weights.clip: this run has '{'e' * 64}', the output was made with '{'c' * 64}'",
    )


def test_values_are_compared_as_json_stores_them(disk):
    begin(disk, record())
    refuse_another_run(disk, record(decode__pamr_dilations=(8, 16)), NAMES)


def test_a_field_that_is_newer_than_the_output_counts_as_its_default(disk):
    old = record()
    for name in ("beta", "dtype"):
        del old.recipe["segmenter"]["model"][name]
    begin(disk, dataclasses.replace(old, fingerprint=fingerprint(old.recipe)))
    begin(disk, record())
    assert differences(disk, record(model__beta=2.0)) == (
        "segmenter.model.beta: this run has 2.0, the output was made with 1.2",
    )
    with pytest.raises(RecipeMismatch, match=r"beta: this run has 1.2, the output was made with 2\.5"):
        refuse_another_run(disk, record(), NAMES, recipe_defaults={"segmenter": {"model": {"beta": 2.5}}})


def test_a_field_that_only_the_output_has_is_named(disk):
    begin(disk, record(model__new="x"))
    assert differences(disk, record()) == ("segmenter.model.new: this run has nothing, the output was made with 'x'",)


def test_of_another_vocabulary_the_classes_that_differ_are_named(disk):
    begin(disk, record())
    other = Vocabulary.from_names(["sky", "tree", "horse"], name="ours")
    (line,) = differences(disk, record(other), other)
    assert line.startswith("vocabulary: ")
    assert "horse" in line
    assert NAMES.fingerprint not in line


def test_embeddings_of_the_users_own_are_compared_too(disk):
    ours = NAMES.with_embeddings(np.eye(2, dtype=np.float32))
    others = NAMES.with_embeddings(np.array([[0, 1], [1, 0]], np.float32))
    begin(disk, record(ours), ours)
    write_vocabulary(disk, ours)
    refuse_another_run(disk, record(ours), ours)
    for vocabulary in (NAMES, others):
        (line,) = differences(disk, record(vocabulary), vocabulary)
        assert "embeddings" in line


def test_a_vocabulary_that_cannot_be_compared_is_told_by_its_hash(disk):
    begin(disk, record())
    other = Vocabulary.from_names(["sky"], name="ours")
    for damage in (lambda: disk.write(VOCABULARY, b"{"), lambda: disk.delete(VOCABULARY)):
        damage()
        (line,) = differences(disk, record(other), other)
        assert NAMES.fingerprint in line
        assert other.fingerprint in line


def test_an_output_of_another_version_is_refused(disk):
    begin(disk, record())
    disk.write(RUN, json.dumps(json.loads(disk.read(RUN)) | {"schema_version": 99}).encode())
    with pytest.raises(ValueError, match=r"schema_version 99, .* reads 1"):
        begin(disk, record())


def test_the_record_holds_no_credentials_and_no_times(disk):
    begin(disk, record(input_uri="s3://bucket/images?token=secret"))
    fields = json.loads(disk.read(RUN))
    assert fields["input"] == "s3://bucket/images"
    assert sorted(fields) == ["fingerprint", "input", "packages", "recipe", "schema_version"]


def test_of_two_recipes_begun_at_once_one_is_refused(disk):
    def begun(crop):
        try:
            begin(disk, record(windows__crop=crop))
        except RecipeMismatch:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(begun, [224, 448])) == [False, True]


def test_a_vocabulary_comes_back_and_its_file_holds_the_bytes_that_torch_writes(storage):
    embeddings = np.random.default_rng(0).standard_normal((2, 5)).astype(np.float32)
    vocabulary = NAMES.with_embeddings(embeddings)
    begin(storage, record(vocabulary), vocabulary)
    assert not has_embeddings(storage)
    assert read_names(storage) == NAMES
    write_vocabulary(storage, vocabulary)
    assert has_embeddings(storage)
    assert read_vocabulary(storage) == vocabulary
    assert storage.read(VOCABULARY) == json.dumps(NAMES.to_json(), ensure_ascii=False, indent=1).encode()
    tensor = torch.tensor(vocabulary.embeddings)
    assert storage.read(EMBEDDINGS) == safetensors.torch.save({"embeddings": tensor})
    write_embeddings(storage, np.zeros((2, 5), np.float32))
    assert read_vocabulary(storage) == vocabulary


@pytest.mark.parametrize(
    ("key", "data", "message"),
    [
        (VOCABULARY, b"{", r"vocabulary.json: .* 1 bytes are not JSON"),
        (VOCABULARY, b"[]", r"vocabulary.json: .* list instead of an object"),
        (VOCABULARY, b'{"classes": 3}', r"vocabulary.json of "),
        (VOCABULARY, b'{"classes": []}', r"vocabulary.json of "),
        (VOCABULARY, b'{"classes": ["a", "b", "c"]}', r"text_embeddings.safetensors of "),
        (EMBEDDINGS, b"nothing of this kind", r"text_embeddings.safetensors of .*delete the file"),
        (EMBEDDINGS, safetensors.torch.save({"other": torch.zeros(2, 2)}), r"text_embeddings.safetensors of "),
    ],
    ids=str,
)
def test_a_vocabulary_that_was_changed_is_named(disk, key, data, message):
    write_vocabulary(disk, NAMES.with_embeddings(np.eye(2, dtype=np.float32)))
    disk.write(key, data)
    with pytest.raises(ValueError, match=message):
        read_vocabulary(disk)
