"""Who reads the labels again, and how far did they get?"""
