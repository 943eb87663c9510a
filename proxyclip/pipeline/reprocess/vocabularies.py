"""The folder of vocabularies: each file is read once, when a run begins, and what it held then is what the run uses."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from proxyclip.storage.store import Storage, StorageError, public_uri
from proxyclip.vocabulary.names import Vocabulary, VocabularyError

SUFFIXES = (".txt", ".json", ".yaml", ".yml")
EMBEDDINGS_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class VocabularyFile:
    """A vocabulary and the bytes it was read from: its file's, and those of its embeddings if there are some.

    key: the name of the file. The name of the vocabulary is that without the suffix.
    """

    key: str
    vocabulary: Vocabulary
    content: Mapping[str, bytes]

    @property
    def name(self) -> str:
        """The folder that the labels get."""
        return PurePosixPath(self.key).stem


class VocabularyFolder:
    """What a folder held when it was listed.

    names: of all vocabularies, also of those with errors. wrong: reasons by file. ignored: files that are no
    vocabularies; hidden ones are not mentioned.
    """

    def __init__(self, uri: str) -> None:
        """Raises FileNotFoundError or ValueError, with what to do, if there are no vocabularies."""
        self.storage = Storage(uri)
        self.wrong: dict[str, str] = {}
        found = [entry.key for entry in self.storage.list() if not _hidden(entry.key)]
        keys = [key for key in found if "/" not in key and _suffix(key) in SUFFIXES]
        if not keys:
            raise self._nothing(found)
        names = Counter(PurePosixPath(key).stem for key in keys)
        self.names = sorted(names)
        self._embeddings = {
            PurePosixPath(key).stem: key
            for key in found
            if "/" not in key and _suffix(key) == EMBEDDINGS_SUFFIX and PurePosixPath(key).stem in names
        }
        self.ignored = [key for key in found if key not in keys and key not in self._embeddings.values()]
        self._keys = []
        for key in keys:
            name = PurePosixPath(key).stem
            if names[name] == 1:
                self._keys.append(key)
            else:
                twins = " and ".join(repr(each) for each in keys if PurePosixPath(each).stem == name)
                self.wrong[key] = f"{twins} have the same name, and labels go to a folder of that name; rename one."

    def read(self) -> list[VocabularyFile]:
        """Read every vocabulary. Those with errors go to `wrong`. Raises StorageError if the storage is down."""
        files = []
        for key in self._keys:
            embeddings = self._embeddings.get(PurePosixPath(key).stem)
            try:
                content = {each: self.storage.read(each) for each in (key, embeddings) if each is not None}
                files.append(VocabularyFile(key, _parsed(key, embeddings, content), content))
            except StorageError:
                raise
            except FileNotFoundError:
                self.wrong[key] = "the file was deleted while it was read; the next run goes by what is there then."
            except (ValueError, OSError) as error:
                self.wrong[key] = str(error)
        return files

    def still_holds(self, file: VocabularyFile) -> bool:
        """Whether a file, and its embeddings, are now as they were read."""
        try:
            return all(self.storage.read(key) == data for key, data in file.content.items())
        except (FileNotFoundError, PermissionError):
            return False

    def _nothing(self, found: list[str]) -> Exception:
        shown, what = public_uri(self.storage.uri), "Put a .txt, .json or .yaml file there for each vocabulary"
        example = "for instance city.txt with one class per line."
        if self.storage.local and not self.storage.local.is_dir():
            return FileNotFoundError(f"--vocabularies {shown} is not a folder; make it. {what}, {example}")
        others = f" among {len(found)} files" if found else ""
        return ValueError(f"--vocabularies {shown} has no vocabulary{others}. {what}, {example}")


def _suffix(key: str) -> str:
    return PurePosixPath(key).suffix.lower()


def _hidden(key: str) -> bool:
    return key.startswith(".") or "/." in key


def _parsed(key: str, embeddings: str | None, content: Mapping[str, bytes]) -> Vocabulary:
    """Parse as a file of that name: the parsers of vocabularies read files."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in content.items():
            Path(folder, name).write_bytes(data)
        try:
            return Vocabulary.from_file(Path(folder, key), Path(folder, embeddings) if embeddings else None)
        except VocabularyError as error:
            place = error.place.removeprefix(f"{folder}/")
            raise VocabularyError(error.problem, "" if place == key else place.removeprefix(f"{key}, ")) from error
