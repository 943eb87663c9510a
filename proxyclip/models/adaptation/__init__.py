"""What does a corpus tell about its classes, without labels?"""
