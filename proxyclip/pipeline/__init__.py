"""Labelling as a Ray Data job over shards. Nothing outside this package imports ray."""

from proxyclip.pipeline.label import Summary, label

__all__ = ["Summary", "label"]
