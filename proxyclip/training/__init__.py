"""What learns from it? Loaders of masks for training."""
