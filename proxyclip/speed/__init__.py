"""How fast is it? A plain implementation to measure against, seeded networks of real size, and the measurements."""
