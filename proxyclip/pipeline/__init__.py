"""How do millions of images get through? The only room that imports Ray."""
