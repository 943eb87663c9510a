"""One corpus as files, as a table, as Parquet and as tar files: the same masks, and the same of all that follows."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path

import pytest
from corpora import FORMS, Corpus, pack, pack_part
from labelling import data_files, draw, embedded, failures_of, small_options

from proxyclip.dataset.run_record import RecipeMismatch
from proxyclip.dataset.shards import read_masks
from proxyclip.dataset.upkeep.verify import verify
from proxyclip.export.options import ExportOptions
from proxyclip.gallery.build import gallery
from proxyclip.gallery.options import GalleryOptions, PreviewOptions
from proxyclip.gallery.preview import preview
from proxyclip.images.inputs.images import fetch_image, open_images
from proxyclip.pipeline.export.run import export
from proxyclip.pipeline.opening import open_run
from proxyclip.pipeline.options import LabelOptions
from proxyclip.pipeline.relabel.options import RelabelOptions
from proxyclip.pipeline.relabel.run import relabel
from proxyclip.pipeline.run import execute, label
from proxyclip.storage.store import Storage

pytestmark = pytest.mark.usefixtures("one_cluster")


class Idle(contextlib.ExitStack):
    """Labels nothing."""

    retries = 0

    def __init__(self, run):
        super().__init__()

    def dtype(self, asked):
        return asked or "float32"

    def label(self, config, pending):
        return iter(())


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A corpus and its labels, with features. folder: the images as files."""

    corpus: Corpus
    options: LabelOptions
    folder: Path

    def results(self):
        return self.corpus.results(self.options.output)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "images"
    draw(folder, 9)
    (folder / "text.jpg").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def as_files(one_cluster, folder):
    """What labelling the folder itself gives, by name."""
    options = embedded(small_options(folder, shard_size=3))
    assert label(options).exit_code == 3
    return Corpus(options.input, str).results(options.output)


@pytest.fixture(scope="module", params=FORMS[1:])
def labelled(request, one_cluster, folder, tmp_path_factory):
    """The same images in another form."""
    place = tmp_path_factory.mktemp(request.param)
    corpus = pack(folder, Storage(str(place)), request.param)
    options = embedded(small_options(folder, shard_size=3, keep_features=True))
    options = dataclasses.replace(options, input=corpus.input, output=str(place / "labels"))
    summary = label(options)
    assert (summary.images, summary.labelled, summary.failed, summary.exit_code) == (10, 9, 1, 3)
    return Labelled(corpus, options, folder)


def test_every_form_gives_the_masks_of_the_files(labelled, as_files):
    assert labelled.results() == as_files
    assert verify(Storage(labelled.options.output)).problems == []
    (failure,) = failures_of(labelled.options.output).values()
    assert (labelled.corpus.name(failure["uri"]), failure["status"]) == ("text.jpg", "decode_failed")


def test_the_images_of_every_form_are_read_by_their_uris(labelled, tmp_path):
    output = labelled.options.output
    uris = {labelled.corpus.name(row.uri): row.uri for row in read_masks(Storage(output))}
    images = open_images(labelled.corpus.input)
    for name, uri in uris.items():
        assert fetch_image(images, uri) == (labelled.folder / name).read_bytes()
    assert len(preview(PreviewOptions(output, limit=10))) == 10
    built = gallery(GalleryOptions(output))
    assert (built.shown, built.gone) == (9, 0)
    exported = export(ExportOptions(output, str(tmp_path / "png"), to="png"))
    assert (exported.exit_code, exported.exported) == (0, 9)
    exported = export(ExportOptions(output, str(tmp_path / "webdataset"), to="webdataset"))
    assert (exported.exit_code, exported.exported) == (0, 9)
    refined = RelabelOptions(output, str(tmp_path / "refined"), (str(labelled.options.vocabulary),), pamr_steps=2)
    refined = dataclasses.replace(refined, embeddings=(str(labelled.options.embeddings),))
    (summary,) = relabel(refined).values()
    assert (summary.labelled, summary.failed) == (9, 1)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["parquet", "tar"])
def test_a_corpus_grows_by_a_file_and_a_damaged_file_is_a_failure_until_it_is_whole(options, corpus, tmp_path, form):
    place = Storage(str(tmp_path))
    packed = pack(corpus, place, form, parts=2)
    options = dataclasses.replace(options, input=packed.input, output=str(tmp_path / "labels"))
    label(options)
    before = {name for name in data_files(options.output) if name.startswith("masks/")}
    draw(corpus, 3, first=10)
    new = sorted(path.relative_to(corpus).as_posix() for path in corpus.rglob("*") if "image 01" in path.name)
    assert len(new) == 3
    pack_part(corpus, place, form, 2, new)
    (path,) = tmp_path.glob(f"{'parquet' if form == 'parquet' else 'tars'}/*2.*")
    whole = path.read_bytes()
    path.write_bytes(whole[:700])
    summary = label(options)
    assert (summary.images, summary.labelled, summary.failed, summary.exit_code) == (11, 10, 1, 3)
    (failure,) = failures_of(options.output).values()
    assert failure["uri"] == f"{path.name}{'#' if form == 'parquet' else '!'}"
    assert (failure["status"], path.name in failure["reason"]) == ("fetch_failed", True)
    path.write_bytes(whole)
    summary = label(options)
    assert (summary.images, summary.labelled, summary.failed, summary.exit_code) == (13, 13, 0, 0)
    assert before <= set(data_files(options.output))  # nothing was labelled twice
    assert set(new) <= packed.results(options.output).keys()


def test_another_column_is_another_input(options, corpus, tmp_path):
    packed = pack(corpus, Storage(str(tmp_path)), "parquet")
    options = dataclasses.replace(options, input=f"{tmp_path}/parquet", key_column="name", output=str(tmp_path / "out"))
    execute(open_run(options), Idle)
    recorded = json.loads((tmp_path / "out" / "run.json").read_text())["input"]
    assert recorded == packed.input == f"{tmp_path}/parquet;key-column=name"
    assert open_run(dataclasses.replace(options, input=packed.input, key_column=None)).pending
    with pytest.raises(RecipeMismatch, match="key-column=name"):
        open_run(dataclasses.replace(options, key_column=None))
