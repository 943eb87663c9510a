"""How do the labels of an output get into another format?"""
