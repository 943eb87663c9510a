"""What is left on disk? The layout of an output, its rows, its plan and its commits."""
