"""How does something go over every shard of a labelled output?"""
