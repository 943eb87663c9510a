"""How good are the labels, and what makes them better?"""
