"""How do dense features become labels?"""
