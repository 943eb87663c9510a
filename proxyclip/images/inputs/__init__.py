"""Which forms may an input have? Files, tables of URIs, Parquet files with image bytes, tar files."""
