"""How does a labelled corpus get another vocabulary?"""
