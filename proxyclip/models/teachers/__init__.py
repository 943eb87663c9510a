"""How does a network with its own way to labels label a pixel?"""
