"""What does a run need of Ray? A cluster, joined or started, and the actors that it bears."""
