"""What learns from it? Loaders that pair images with their masks, for training."""
