"""Which classes, which words, which colours?"""
