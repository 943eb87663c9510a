"""Which network is built, and from which weights?"""
