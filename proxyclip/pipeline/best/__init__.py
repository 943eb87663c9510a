"""How does one command make the best masks?"""
