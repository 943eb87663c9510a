"""What is left on disk? An output: its run record, plan, data files, commits and statistics.

shard: a fixed list of images; it has one commit and one data file of each kind. plan: which images make up which
shard. commit: the proof that a shard is done. segment: the commits of a block of shards in one file. dead row: a row
of an image that was changed or removed since; it stays in its file and counts nowhere.
"""
