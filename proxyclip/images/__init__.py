"""What comes in? Images are listed, fetched, read and resized here."""
