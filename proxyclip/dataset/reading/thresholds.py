"""A thresholds file, from wherever it lies."""

from __future__ import annotations

import json

from proxyclip.storage.store import Storage, public_uri
from proxyclip.vocabulary.names import Vocabulary
from proxyclip.vocabulary.thresholds import Thresholds


def load_thresholds(file: str, vocabulary: Vocabulary) -> Thresholds:
    """The thresholds in a file, given by path or URI, for labels that are made with a vocabulary.

    Raises FileNotFoundError, and ValueError if the file is of another vocabulary, also if only queries differ.
    """
    folder, slash, name = file.rpartition("/")
    storage, place = Storage(folder or slash or "."), f"--thresholds {public_uri(file)}"
    try:
        data = storage.read(name)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise FileNotFoundError(
            f"{place}: there is no such file; give the thresholds.json of `proxyclip calibrate`."
        ) from error
    thresholds = Thresholds.from_json(data, vocabulary, place)
    if json.loads(data).get("vocabulary_fingerprint") not in (None, vocabulary.fingerprint):
        raise ValueError(
            f"{place}: the classes have the same names, but the file was made with other queries or text embeddings, "
            "which give other confidences. Calibrate again with these."
        )
    return thresholds
