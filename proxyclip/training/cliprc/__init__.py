"""How does CLIP-RC learn to label a pixel?"""
