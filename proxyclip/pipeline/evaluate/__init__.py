"""How are the masks of an output, or of a benchmark, scored?"""
