"""What a run of `reprocess` did, and how it says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from proxyclip.pipeline.run import Summary

SHOWN_ERRORS = 20


@dataclass
class Reprocessed:
    """What one run did.

    new_images: encoded by this run, with those that failed. updated: the versions that got masks or became current,
    by vocabulary. unchanged: vocabularies that were up to date. failed: reasons by file. gone: vocabularies with
    labels whose file is gone. overtaken: vocabularies that a run with a newer file brought up to date meanwhile.
    ignored: files of the folder that are no vocabularies. deleted: old versions, as NAME/VERSION. corpus: how encoding
    ended. images_failed: whether any image has no features or no mask.
    """

    new_images: int = 0
    updated: dict[str, str] = field(default_factory=dict)
    unchanged: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    gone: list[str] = field(default_factory=list)
    overtaken: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    corpus: Summary = field(default_factory=Summary)
    images_failed: bool = False

    @property
    def exit_code(self) -> int:
        """0: all is up to date. 1: something is not. 3: all is, with failed images (0 if they are allowed)."""
        if self.failed or self.corpus.exit_code == 1:
            return 1
        return 3 if self.images_failed and not self.corpus.failures_allowed else 0

    def errors(self) -> Iterator[str]:
        """A line for each thing that a person should look at."""
        corpus = self.corpus
        for shard, error in sorted(corpus.shard_errors.items())[:SHOWN_ERRORS]:
            yield f"corpus, shard {shard}: {error}"
        if corpus.stopped:
            yield f"corpus: {corpus.stopped}"
        if not corpus.finished:
            yield f"corpus: {corpus.shards - corpus.committed} shards are not encoded; the next run goes on."
        for file, reason in sorted(self.failed.items()):
            yield f"{file}: {reason}"

    def lines(self, output: str) -> Iterator[str]:
        """What was done, in words. The last line is the sum of it."""
        if self.corpus.images:
            yield f"{self.corpus.labelled} of {self.corpus.images} images encoded, {self.corpus.failed} failed."
        if self.corpus.failed:
            yield f"The reasons are in {output}/corpus/features/failures/"
        for name, version in sorted(self.updated.items()):
            yield f"{name}: {output}/labels/{name}/{version}"
        for name in self.overtaken:
            yield f"{name}: another run has made a newer version meanwhile, which stays the current one."
        for name in self.deleted:
            yield f"{name}: deleted, an old version."
        for name in self.gone:
            yield f"{name}: has labels, but no file in the folder of vocabularies; they are not updated any more."
        for file in self.ignored:
            yield f"{file}: ignored, no vocabulary."
        yield self.last_line()

    def last_line(self) -> str:
        """The sum of it."""
        updated, images = len(self.updated), self.new_images
        parts = [
            f"{images} new image{'' if images == 1 else 's'}",
            f"{updated} vocabular{'y' if updated == 1 else 'ies'} updated",
            f"{len(self.unchanged) + len(self.overtaken)} unchanged",
            f"{len(self.failed)} failed",
        ]
        unfinished = "; not all images are encoded" if self.corpus.exit_code == 1 else ""
        return f"reprocess: {', '.join(parts)}{unfinished}"
