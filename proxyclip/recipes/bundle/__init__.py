"""Which files does a preset need, where there is no internet?"""
