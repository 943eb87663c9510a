"""How do labels stay up to date, when images and vocabularies come, change and go?"""
