"""Reprocess: encode what is new, bring the labels of every vocabulary up to date, say what was done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from proxyclip.dataset.commits import committed, read_commits
from proxyclip.dataset.features.record import FeatureRecord, features_manifest, require_features
from proxyclip.dataset.plan import PlanPart
from proxyclip.dataset.run_record import RunRecord, require_run
from proxyclip.images.inputs.address import InputAddress
from proxyclip.pipeline import run as labelling
from proxyclip.pipeline.cluster.one_cluster import OneCluster
from proxyclip.pipeline.opening import absolute_input, open_run, output_uri
from proxyclip.pipeline.relabel import run as relabelling
from proxyclip.pipeline.relabel.opening import Relabelling, Target, open_target
from proxyclip.pipeline.reprocess.options import ReprocessOptions
from proxyclip.pipeline.reprocess.report import Reprocessed
from proxyclip.pipeline.reprocess.versions import Current, note_names, point, read_current, tidy, version_of
from proxyclip.pipeline.reprocess.vocabularies import VocabularyFile, VocabularyFolder
from proxyclip.pipeline.run import Summary
from proxyclip.storage.store import Storage, StorageError, public_uri


def reprocess(options: ReprocessOptions) -> Reprocessed:
    """Do one run of the standing job.

    Raises ValueError, FileNotFoundError or another OSError if it cannot start: no vocabularies, no images, an output
    with other features. A vocabulary with errors is in `failed` of what is returned, and stops nothing else.
    """
    options = replace(
        absolute_input(options),
        vocabularies=Storage(options.vocabularies).uri,
        output=output_uri(options.output),
    )
    _refuse_output_inside(options)
    folder = VocabularyFolder(options.vocabularies)
    with _Reprocessing(options, folder) as run:
        files = run.read()
        run.encode()
        work = run.find_work(files)
        for item, summary in run.relabel(work):
            run.conclude(item, summary)
    for file in files:
        run.tidy(file)
    done = run.done
    done.gone = note_names(Storage(options.output), folder.names, [*done.updated, *done.unchanged, *done.overtaken])
    return done


@dataclass(frozen=True)
class _Work:
    """A vocabulary that is not up to date. seen: what current.json said before the vocabulary was read."""

    file: VocabularyFile
    target: Target
    version: str
    seen: Current | None


class _Reprocessing(OneCluster):
    """A run at work."""

    def __init__(self, options: ReprocessOptions, folder: VocabularyFolder) -> None:
        super().__init__(options.address, verbose=options.verbose)
        self.options = options
        self.folder = folder
        self.done = Reprocessed(failed=folder.wrong, ignored=folder.ignored)
        self._seen: dict[str, Current | None] = {}
        self._corpus = Storage(options.corpus)

    def read(self) -> list[VocabularyFile]:
        """The vocabularies of this run. From here on, the folder may change."""
        for name in self.folder.names:
            try:
                self._seen[name] = read_current(self._labels(name))  # first: see `point`
            except ValueError as error:
                self.done.failed[f"labels/{name}"] = str(error)
        return [file for file in self.folder.read() if file.name in self._seen]

    def encode(self) -> None:
        """Make the features of new images."""
        run = open_run(self.options.of_corpus())
        manifest = features_manifest(self._corpus)
        before = manifest.committed()
        self.done.corpus = labelling.execute(run, self.labeller)
        self.done.images_failed |= self.done.corpus.failed > 0
        after = manifest.committed()
        new = [shard for shard in after if shard not in before]
        self.done.new_images = sum(commit.images for commit in read_commits(manifest.commits, after, new))

    def find_work(self, files: Sequence[VocabularyFile]) -> list[_Work]:
        """The vocabularies that are not up to date."""
        run, features = require_run(self._corpus), require_features(self._corpus)
        parts = features_manifest(self._corpus).plan.parts()

        def look(file: VocabularyFile) -> tuple[_Work | None, str | None]:
            try:
                work = self._open(file, run, features)
            except StorageError:
                raise
            except (ValueError, OSError) as error:
                return None, str(error)
            return (None if _is_up_to_date(work, parts) else work), None

        found = []
        with ThreadPoolExecutor(16) as pool:
            for file, (work, error) in zip(files, pool.map(look, files), strict=True):
                seen = self._seen[file.name]
                if error is not None:
                    self.done.failed[file.key] = error
                elif work is not None:
                    found.append(work)
                else:
                    self.done.unchanged.append(file.name)
                    self.done.images_failed |= seen is not None and seen.failed > 0
        return found

    def relabel(self, work: Sequence[_Work]) -> list[tuple[_Work, Summary]]:
        """Relabel all at once, so that features are read once; one by one if one of them ends that with an error."""
        if not work:
            return []
        names, targets = tuple(item.file.name for item in work), [item.target for item in work]
        source, features = features_manifest(self._corpus), require_features(self._corpus)
        options = self.options.of_vocabularies(names)
        run = Relabelling(options, source, self.options.input, features.encoder["weights"], targets)
        try:
            summaries = relabelling.execute(run, self.relabeller)
        except StorageError:
            raise
        except (ValueError, OSError) as error:
            if len(work) == 1:
                self.done.failed[work[0].file.key] = str(error)
                return []
            return [each for item in work for each in self.relabel([item])]
        return [(item, summaries[item.target.storage.uri]) for item in work]

    def conclude(self, work: _Work, summary: Summary) -> None:
        """Let current.json point to a version if it is finished."""
        name, labels = work.file.name, self._labels(work.file.name)
        if summary.exit_code == 1 or not summary.shards:  # none: another run has deleted this version
            self.done.failed[work.file.key] = self._why_unfinished(summary)
            return
        self.done.images_failed |= summary.failed > 0
        counts = {each: getattr(summary, each) for each in ("images", "labelled", "failed", "shards")}
        new = Current(version=work.version, vocabulary=work.file.vocabulary.fingerprint, versions=(), **counts)
        try:
            moved = point(labels, work.seen, new, lambda: self.folder.still_holds(work.file))
        except (ValueError, OSError) as error:
            self.done.failed[work.file.key] = f"current.json cannot be written: {error}"
            return
        if moved:
            self.done.updated[name] = work.version
        else:
            self.done.overtaken.append(name)

    def tidy(self, file: VocabularyFile) -> None:
        """Delete old versions, if there may be some: after a new version, or if more are listed than are kept."""
        name, keep, seen = file.name, self.options.keep_versions, self._seen[file.name]
        version = self.done.updated.get(name)
        is_new = version is not None and (seen is None or version != seen.version)
        if not is_new and (seen is None or len(seen.versions) <= keep):
            return
        try:
            self.done.deleted += [f"{name}/{version}" for version in tidy(self._labels(name), keep, time.time())]
        except (ValueError, OSError) as error:
            self.done.failed[file.key] = f"old versions cannot be deleted: {error}"

    def _labels(self, name: str) -> Storage:
        return Storage(f"{self.options.labels}/{name}")

    def _open(self, file: VocabularyFile, run: RunRecord, features: FeatureRecord) -> _Work:
        vocabulary, labels = file.vocabulary, self._labels(file.name)
        options = self.options.of_vocabularies((file.name,))
        target = open_target(
            vocabulary, options, run, features, lambda record: f"{labels.uri}/{version_of(record, vocabulary)}"
        )
        return _Work(file, target, target.storage.uri.rpartition("/")[2], self._seen[file.name])

    def _why_unfinished(self, summary: Summary) -> str:
        if summary.shard_errors:
            shard, error = min(summary.shard_errors.items())
            return f"not finished, shards that failed: {len(summary.shard_errors)}; shard {shard}: {error}"
        source = features_manifest(self._corpus)
        if source.pending():
            return "not finished, because not all images are encoded yet; the next run goes on."
        return summary.stopped or "not finished, because another run works on it too; the next run goes on."


def _is_up_to_date(work: _Work, parts: Sequence[PlanPart]) -> bool:
    """Whether current.json points to this version with the plan of today, and every shard is committed.

    A plan only grows, and each part adds shards or only removes images: so both numbers say which plan it is.
    """
    current = work.seen
    if current is None or current.version != work.version:
        return False
    images = sum(part.num_images - part.num_superseded for part in parts)
    if (current.images, current.shards) != (images, sum(part.num_shards for part in parts)):
        return False
    labelled = committed(work.target.storage)
    return all(shard in labelled for part in parts for shard in part.shards)


def _refuse_output_inside(options: ReprocessOptions) -> None:
    """Pictures that are drawn of labels would be taken for images, and listings would go through all masks."""
    outer_uris = {"input": InputAddress.parse(options.input).place, "vocabularies": options.vocabularies}
    for name, outer_uri in outer_uris.items():
        outer, output = (str(Path(uri).resolve()) if Storage(uri).local else uri for uri in (outer_uri, options.output))
        if f"{output}/".startswith(f"{outer}/"):
            raise ValueError(f"--output {public_uri(output)} lies in --{name}; give a folder beside it.")
