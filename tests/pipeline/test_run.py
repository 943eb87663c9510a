"""The job: from a folder of images to committed shards, through Ray Data."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from labelling import NAMES, command, data_files, draw, draw_mixed, labels, small_options
from PIL import Image
from safetensors.numpy import save_file

from proxyclip.cli import run_job
from proxyclip.dataset.masks import confidence_from_png, mask_from_png
from proxyclip.dataset.plan import ShardRange
from proxyclip.dataset.shards import read_masks
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.models.decoding.reduce import reduce_confidence
from proxyclip.models.kernels import precision
from proxyclip.models.segmenter import Segmenter
from proxyclip.pipeline import runner
from proxyclip.pipeline.opening import open_run
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.recipe import segmenter_config
from proxyclip.pipeline.run import execute, label
from proxyclip.pipeline.stages.actor import Actors
from proxyclip.pipeline.stages.graph import label_graph
from proxyclip.pipeline.stages.read import ShardSource
from proxyclip.pipeline.stages.write import WriteShards
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary

pytestmark = pytest.mark.usefixtures("one_cluster")


@pytest.fixture
def main(monkeypatch):
    """jobs/label.py's main, given its command line."""

    def run(argv):
        monkeypatch.setattr(sys, "argv", argv)
        return run_job("label")

    return run


@pytest.fixture(scope="module")
def finished(one_cluster, tmp_path_factory):
    """The options of a finished run, whose files no test changes. CLIP's text tower has embedded its vocabulary."""
    folder = tmp_path_factory.mktemp("finished") / "images"
    draw(folder, 10)
    options = small_options(folder, shard_size=3, ignore_below=0.35)
    summary = label(options)
    assert (summary.images, summary.labelled, summary.failed, summary.exit_code) == (10, 10, 0, 0)
    return options


def test_the_job_writes_what_the_library_predicts(finished):
    vocabulary = Vocabulary.load(finished.vocabulary)
    segmenter = Segmenter.from_config(segmenter_config(finished, vocabulary))
    corpus = Path(finished.input)
    rows = list(read_masks(Storage(finished.output)))
    assert [row.uri for row in rows] == sorted(str(p.relative_to(corpus)) for p in corpus.rglob("*.jpg"))
    for row in rows:
        expected = segmenter.predict(corpus / row.uri, vocabulary)
        np.testing.assert_array_equal(mask_from_png(row.mask), expected.mask)
        confidence = reduce_confidence(torch.from_numpy(expected.confidence), 4)
        np.testing.assert_array_equal(confidence_from_png(row.confidence), confidence)
        labelled = expected.mask != 255
        classes, pixels = np.unique(expected.mask[labelled], return_counts=True)
        assert (row.classes, row.pixels, row.ignored) == (classes.tolist(), pixels.tolist(), (~labelled).sum())
        assert row.mean_confidence == pytest.approx(expected.confidence[labelled].mean(), abs=1e-5)


def test_class_stats_are_the_sums_of_the_masks(finished):
    masks = labels(finished.output)
    stats = pq.read_table(Path(finished.output) / "class_stats.parquet").to_pylist()
    for row in stats:
        assert row["name"] == NAMES[row["class"]]
        assert row["pixels"] == sum(int((mask == row["class"]).sum()) for mask in masks.values())
        assert row["images"] == sum(bool((mask == row["class"]).any()) for mask in masks.values())
    assert any((mask == 255).any() for mask in masks.values())


def refuse_to_run(run):
    raise AssertionError("a finished run needs no cluster")


def test_a_finished_run_starts_no_cluster_and_writes_nothing(finished):
    before = {path: path.stat().st_mtime_ns for path in Path(finished.output).rglob("*")}
    assert execute(open_run(finished), refuse_to_run).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in Path(finished.output).rglob("*")} == before


def test_a_finished_run_imports_neither_torch_nor_ray(finished):
    code = (
        "import sys; from proxyclip.cli import run_job; code = run_job('label'); "
        "print([name for name in ('torch', 'ray') if name in sys.modules]); sys.exit(code)"
    )
    run = subprocess.run([sys.executable, "-c", code, *command(finished)[2:]], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [f"10 of 10 images labelled, 0 failed: {finished.output}", "[]"]


def test_a_slow_precision_is_replaced_and_the_same_command_resumes(options, monkeypatch, caplog):
    monkeypatch.setattr(precision, "speed_of", lambda dtype: 0.25)
    asked = dataclasses.replace(options, dtype="bfloat16")
    assert label(asked).exit_code == 0
    assert "bfloat16 is 4.0 times slower than float32" in caplog.text
    record = json.loads(Path(options.output, "run.json").read_text())
    assert (record["recipe"]["segmenter"]["model"]["dtype"], record["asked_dtype"]) == ("float32", "bfloat16")
    assert execute(open_run(asked), refuse_to_run).exit_code == 0
    with pytest.raises(ValueError, match="--dtype"):
        open_run(dataclasses.replace(asked, force_dtype=True))


def test_another_recipe_on_the_same_output_is_refused(finished):
    before = data_files(finished.output)
    for change, named in (
        ({"ignore_below": 0.3}, "--ignore-below"),
        ({"stride": 28}, "--stride"),
        ({"dtype": "bfloat16"}, "--dtype"),
        ({"confidence_stride": 2}, "--confidence-stride"),
        ({"quality": "fast"}, "proxy_scale"),
        ({"fast_decode": True}, "--fast-decode"),
        ({"gaussian_std": 4.0}, "--gaussian-std"),
    ):
        with pytest.raises(ValueError, match=named):
            label(dataclasses.replace(finished, **change))
    assert data_files(finished.output) == before


def test_new_images_become_new_shards_and_an_output_inside_the_input_is_no_image(options, corpus):
    options = dataclasses.replace(options, output=str(corpus / "labels"))
    assert label(options).images == 10
    before = data_files(options.output)
    draw(corpus, 4, first=10)
    Image.new("RGB", (8, 8)).save(corpus / "labels" / "picture.png")
    summary = label(options)
    assert (summary.images, summary.labelled) == (14, 14)
    (corpus / "labels" / "picture.png").unlink()
    after = data_files(options.output)
    assert {name: after[name] for name in before if name != "class_stats.parquet"} == {
        name: data for name, data in before.items() if name != "class_stats.parquet"
    }
    assert len(labels(options.output)) == 14


def test_bytes_do_not_depend_on_actors_and_batches(finished, tmp_path):
    other = dataclasses.replace(finished, output=str(tmp_path / "other"), concurrency=2, batch_windows=3, threads=2)
    label(other)
    assert data_files(other.output) == data_files(finished.output)


def test_stages_run_side_by_side(options, capsys):
    """Reading, labelling and writing overlap only while Ray does not fuse them into one operator."""
    vocabulary = Vocabulary.load(options.vocabulary)
    source = ShardSource(options.input, options.output, [ShardRange(0, (0,))])
    writer = WriteShards(options.output, vocabulary.class_names)
    graph = label_graph(source, (), writer, Actors(1, 1, 0, {"num_cpus": 1}))
    graph.explain()
    plan = capsys.readouterr().out.partition("Physical Plan (Optimized)")[2]
    operators = [line for line in plan.splitlines() if "Operator[" in line]
    assert len(operators) == 3, plan
    assert "->" not in "".join(operators), plan


def test_all_that_a_person_can_see_is_labelled(options, tmp_path, main, capsys):
    folder = tmp_path / "mixed"
    draw_mixed(folder)
    words = command(dataclasses.replace(options, input=str(folder), shard_size=64))[1:]
    assert main(words) == 3
    assert "206 of 220 images labelled, 14 failed" in capsys.readouterr().out
    masks = labels(options.output)
    assert len(masks) == 206
    with Image.open(folder / "rotated.jpg") as image:
        assert masks["rotated.jpg"].shape == (image.width, image.height)
    failures = [
        row
        for path in sorted((Path(options.output) / "failures").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    assert len(failures) == 14
    assert {row["uri"] for row in failures} | set(masks) == {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    }
    by_uri = {row["uri"]: row for row in failures}
    assert by_uri["empty.jpg"]["status"] == "empty"
    assert by_uri["text0.jpg"]["status"] == "decode_failed"
    assert all(row["stage"] == "decode" and row["reason"] for row in failures)
    assert verify(Storage(options.output)).problems == []

    assert main([*words, "--max-failures", "10%"]) == 0


def test_too_many_failures_stop_the_job_and_keep_what_is_done(options, corpus, monkeypatch):
    for index in range(10):
        (corpus / f"a{index}.jpg").write_text("not an image")
    with monkeypatch.context() as patch:
        patch.setattr(runner, "SHARDS_PER_WAVE", 3)  # the second wave is not begun
        summary = label(dataclasses.replace(options, max_failures="20%"))
    assert summary.exit_code == 1
    assert "allows 4" in summary.stopped
    assert 4 < summary.failed < 10
    assert 0 < summary.committed < summary.shards
    assert label(options).committed == summary.shards


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocabulary": "voc12"}, "voc21"),
        ({"preset": "proxyclip-b16-dino-b9"}, "proxyclip-b16-dino-b8"),
        ({"input": "nowhere"}, "nowhere"),
        ({"clip": "local-dir:nowhere"}, "nowhere"),
        ({"proxy": "dino-x9"}, "dino-b8"),
        ({"method": "maskclip", "proxy": "dino-b8"}, "no proxy"),
        ({"background_threshold": 0.2}, "no background"),
        ({"preset": "naclip-b16", "method": "proxyclip"}, "needs a proxy"),
        ({"max_failures": "many"}, "max-failures"),
        ({"shard_size": 0}, "shard-size"),
        ({"num_gpus": 1.5}, "num-gpus"),
    ],
)
def test_a_run_that_cannot_start_says_why(options, change, message, main, capsys):
    words = [word for name, value in change.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    try:
        code = main([*command(options)[1:], *words])
    except SystemExit as stop:  # a value that is wrong by itself is refused by the parser
        code = stop.code
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not Path(options.output).exists()


def test_an_unknown_benchmark_is_not_taken_for_a_vocabulary(options):
    with pytest.raises(ValueError, match=r"Unknown benchmark 'voc2'.*voc21"):
        label(dataclasses.replace(options, vocabulary=None, benchmark="voc2"))


def test_more_gpus_than_there_are_are_refused(options):
    with pytest.raises(ValueError, match="--num-gpus is 64"):
        label(dataclasses.replace(options, num_gpus=64))


def test_a_relative_output_in_a_submitted_job_is_refused(options, tmp_path, monkeypatch):
    folder = tmp_path / "runtime_resources" / "working_dir_files"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match="absolute path"):
        label(dataclasses.replace(options, output="labels"))


def test_embeddings_of_another_clip_are_refused_before_the_run(options, tmp_path):
    save_file({"embeddings": np.eye(5, 7, dtype=np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="have 7 numbers, but the text space of this CLIP has 64"):
        label(dataclasses.replace(options, embeddings=str(tmp_path / "other.safetensors")))
    assert not Path(options.output).exists()


def test_help_explains_every_option(main, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["label.py", "--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    entries = re.split(r" (?=(?:-v, )?--[a-z-]+ [A-Z{])", text)
    for field in dataclasses.fields(LabelOptions):
        (entry,) = (e for e in entries if f"--{field.name.replace('_', '-')}" in e.split()[:2])
        assert "(required)" in entry or "(default: " in entry, entry
        assert "None" not in entry


@pytest.mark.slow  # test_chaos.py compares bytes over S3 in each run
def test_over_s3_the_same_bytes_are_written(options, corpus, s3):
    label(options)
    bucket = Storage(s3.uri("proxyclip-test"))
    for path in corpus.rglob("*.jpg"):
        bucket.write(f"images/{path.relative_to(corpus)}", path.read_bytes())
    remote = dataclasses.replace(options, input=s3.uri("proxyclip-test/images"), output=s3.uri("proxyclip-test/labels"))
    run = subprocess.run(command(remote), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    output = Storage(remote.output)
    written = {
        entry.key: output.read(entry.key)
        for entry in output.list()
        if not entry.key.startswith("plan/") and entry.key != "run.json"
    }
    assert written == data_files(options.output)
    record = json.loads(output.read("run.json"))
    assert record["recipe"] == json.loads((Path(options.output) / "run.json").read_text())["recipe"]


def test_the_fast_job_writes_what_the_fast_library_predicts(options, corpus):
    chosen = dataclasses.replace(options, quality="fast", fast_decode=True, short_side=28)
    assert label(chosen).exit_code == 0
    vocabulary = Vocabulary.load(chosen.vocabulary)
    config = segmenter_config(chosen, vocabulary)
    assert (config.model.proxy_scale, config.windows.fast_decode) == (0.5, True)
    segmenter = Segmenter.from_config(config)
    for row in read_masks(Storage(chosen.output)):
        np.testing.assert_array_equal(mask_from_png(row.mask), segmenter.predict(corpus / row.uri, vocabulary).mask)
