"""Every key of an output, built and parsed here and nowhere else."""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from proxyclip.dataset.rows import ALL_KINDS
from proxyclip.images.inputs.names import as_path

RUN = "run.json"
VOCABULARY = "vocabulary.json"
EMBEDDINGS = "text_embeddings.safetensors"
HEAD = "head.safetensors"
CLASS_STATS = "class_stats.parquet"
CONTACT_SHEET = "preview/contact_sheet.png"

# Folders to list. The data files of a kind are in a folder of the kind's name.
PLAN_FOLDER = "plan"
COMMITS_FOLDER = "commits"

# Features lie below this folder, with commits of their own; keys there are relative to it.
FEATURES_FOLDER = "features"
FEATURES = "features.json"

# Statistics that the labelling job collects for `adapt`, one file a shard, and what they are of.
COLLECTED_FOLDER = "collected"
COLLECTED = f"{COLLECTED_FOLDER}/features.json"


class DataKey(NamedTuple):
    """The parts of a data file's key. sha256: the first 12 hex digits of its hash."""

    kind: str
    shard: int
    sha256: str


def plan_key(part: int) -> str:
    """The key of a part of the plan."""
    return f"{PLAN_FOLDER}/{part:05d}.parquet"


def parse_plan_key(key: str) -> int | None:
    """The part that a key belongs to; None for another key."""
    return _number(rf"{PLAN_FOLDER}/(\d{{5,}})\.parquet", key)


def commit_key(shard: int) -> str:
    """The key of a shard's commit while it is a file of its own."""
    return f"{COMMITS_FOLDER}/{shard:06d}.json"


def parse_commit_key(key: str) -> int | None:
    """The shard that a commit's key belongs to; None for another key."""
    return _number(rf"{COMMITS_FOLDER}/(\d{{6,}})\.json", key)


def segment_key(block: int) -> str:
    """The key of the segment that holds the commits of a block of shards."""
    return f"{COMMITS_FOLDER}/segment-{block:05d}.parquet"


def parse_segment_key(key: str) -> int | None:
    """The block that a segment's key belongs to; None for another key."""
    return _number(rf"{COMMITS_FOLDER}/segment-(\d{{5,}})\.parquet", key)


def data_key(kind: str, shard: int, sha256: str) -> str:
    """The key of a shard's data file. The hash in it keeps two writers of one shard apart."""
    return f"{kind}/{shard:06d}-{sha256[:12]}.parquet"


def parse_data_key(key: str) -> DataKey | None:
    """The parts of a data file's key; None for another key."""
    found = re.fullmatch(r"([a-z]+)/(\d{6,})-([0-9a-f]{12})\.parquet", key, re.ASCII)
    if found is None or found[1] not in ALL_KINDS:
        return None
    return DataKey(found[1], int(found[2]), found[3])


def collected_key(shard: int, sha256: str) -> str:
    """The key of a shard's collected statistics."""
    return f"{COLLECTED_FOLDER}/{shard:06d}-{sha256[:12]}.safetensors"


def parse_collected_key(key: str) -> tuple[int, str] | None:
    """The shard of collected statistics, and the first 12 hex digits of their hash; None for another key."""
    found = re.fullmatch(rf"{COLLECTED_FOLDER}/(\d{{6,}})-([0-9a-f]{{12}})\.safetensors", key, re.ASCII)
    return (int(found[1]), found[2]) if found else None


def preview_key(uri: str) -> str:
    """The key of an image's preview, in the folder that the image has in the input."""
    folder, slash, name = as_path(uri).rpartition("/")
    if len(name.encode()) > 250:  # disks take 255 bytes a name
        name = hashlib.sha256(name.encode()).hexdigest()
    return f"preview/{folder}{slash}{name}.png"


def _number(pattern: str, key: str) -> int | None:
    found = re.fullmatch(pattern, key, re.ASCII)
    return int(found[1]) if found else None
