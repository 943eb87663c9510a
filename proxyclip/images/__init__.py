"""What comes in? Listing, fetching, reading and resizing images."""
