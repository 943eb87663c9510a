"""How is a student trained on a cluster? One Ray Train worker runs what `proxyclip.training.student` knows."""
