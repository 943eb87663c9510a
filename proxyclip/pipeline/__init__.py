"""Labelling as a Ray Data job over shards. Nothing outside this package imports ray."""
