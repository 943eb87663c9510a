"""How do the networks' products run on this device?"""
