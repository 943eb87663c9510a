"""How does a pixel get its label? Everything here works on one image and never imports Ray."""
