"""Embed: the text embeddings of a run's vocabulary, made once, while the actors start."""

from __future__ import annotations

import os

from proxyclip.config import ModelConfig


def embed_vocabulary(output: str, model: ModelConfig, weights: dict[str, str], device: str) -> int:
    """Embed the queries of the output's vocabulary and store them there. Returns the storage requests retried.

    weights: hash of each weight file in the recipe. If another run stores its embeddings first, those count.
    """
    # Imported where the task runs: the driver needs no torch.
    import torch

    from proxyclip.dataset.run_record import read_names, write_embeddings
    from proxyclip.models.networks.weights import load_clip
    from proxyclip.models.text import cached_embeddings
    from proxyclip.recipes.weights import check_hashes
    from proxyclip.storage.retry import count_retries
    from proxyclip.storage.store import Storage

    torch.set_num_threads(os.cpu_count() or 1)  # the actors wait for this
    model = check_hashes(model, {"clip": weights["clip"]})
    with count_retries() as retries:
        storage = Storage(output)
        vocabulary = read_names(storage)
        clip = load_clip(model).to(device)
        write_embeddings(storage, cached_embeddings(clip, vocabulary.queries).numpy())
    return retries.count
