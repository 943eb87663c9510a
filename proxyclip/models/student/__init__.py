"""How does a student, a compact network that learned from masks, label a pixel?"""
