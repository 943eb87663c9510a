"""Where do the benchmarks' images and labels lie in a user's own copy?"""
