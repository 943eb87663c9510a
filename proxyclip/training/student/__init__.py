"""How does a compact network learn from masks? One process of a training; knows no Ray."""
