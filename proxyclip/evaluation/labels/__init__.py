"""What do the label files say?"""
