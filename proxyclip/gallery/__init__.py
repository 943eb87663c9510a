"""What does it look like? Overlays and contact sheets."""
