"""How does a corpus teach the labeller?"""
