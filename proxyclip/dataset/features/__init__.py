"""What is kept of the images, for other vocabularies?"""
