"""How does CLIP-RC label a pixel?"""
