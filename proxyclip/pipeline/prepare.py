"""What every actor reads from the output: the vocabulary, with its text embeddings, computed once."""

from __future__ import annotations

import json

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from proxyclip.config import ModelConfig
from proxyclip.dataset.validate import json_object
from proxyclip.models.networks.weights import load_clip
from proxyclip.models.text import cached_embeddings
from proxyclip.storage.retry import take_retries
from proxyclip.storage.store import Storage
from proxyclip.vocabulary.names import Vocabulary, VocabularyError

VOCABULARY_KEY = "vocabulary.json"
EMBEDDINGS_KEY = "text_embeddings.safetensors"


def write_vocabulary(output: Storage, vocabulary: Vocabulary) -> None:
    """Put the vocabulary, and the embeddings it brings, into the output unless they are there."""
    output.create(VOCABULARY_KEY, json.dumps(vocabulary.to_json(), ensure_ascii=False, indent=1).encode())
    if vocabulary.embeddings is not None:
        output.create(EMBEDDINGS_KEY, save({"embeddings": torch.tensor(vocabulary.embeddings)}))


def write_text_embeddings(output: Storage, model: ModelConfig, device: str) -> int:
    """Embed the queries of the output's vocabulary with CLIP's text tower. Returns the storage requests retried."""
    vocabulary = _read_names(output)
    clip = load_clip(model).to(device)
    output.create(EMBEDDINGS_KEY, save({"embeddings": cached_embeddings(clip, vocabulary.queries)}))
    return take_retries()


def read_vocabulary(output: Storage) -> Vocabulary:
    """The output's vocabulary with its text embeddings."""
    vocabulary = _read_names(output)
    try:
        return vocabulary.with_embeddings(load(output.read(EMBEDDINGS_KEY))["embeddings"].numpy())
    except (SafetensorError, KeyError, TypeError, VocabularyError) as error:
        raise ValueError(f"{EMBEDDINGS_KEY} of {output}: {error}; delete it, and it is made anew.") from error


def _read_names(output: Storage) -> Vocabulary:
    try:
        return Vocabulary.from_json(json_object(output.read(VOCABULARY_KEY), VOCABULARY_KEY))
    except VocabularyError as error:
        raise ValueError(f"{VOCABULARY_KEY} of {output}: {error}") from error
