"""Which images should a person look at?"""
