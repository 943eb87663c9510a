"""Is an output whole? Verify it, ask for its status, clean it up."""
