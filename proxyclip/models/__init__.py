"""How does a pixel get its label? One image at a time, with torch; this room knows no storage and no Ray."""
