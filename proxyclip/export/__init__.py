"""Who else wants it? One file for each format; all are made from the same rows."""
