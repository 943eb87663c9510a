"""A thresholds file, from wherever it lies."""

from __future__ import annotations

from proxyclip.storage.store import Storage, public_uri
from proxyclip.vocabulary.names import Vocabulary
from proxyclip.vocabulary.thresholds import Thresholds


def load_thresholds(file: str, vocabulary: Vocabulary) -> Thresholds:
    """The thresholds in a file, given by path or URI. Raises FileNotFoundError and, if it does not fit, ValueError."""
    folder, slash, name = file.rpartition("/")
    storage, place = Storage(folder or slash or "."), f"--thresholds {public_uri(file)}"
    try:
        data = storage.read(name)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"{place}: there is no such file; give the thresholds.json of `proxyclip calibrate`."
        ) from error
    return Thresholds.from_json(data, vocabulary, place)
