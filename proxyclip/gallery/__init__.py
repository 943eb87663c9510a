"""What does it look like? Overlays, contact sheets, previews of a run."""
