"""What happens to a shard? It is read, labelled and written."""
