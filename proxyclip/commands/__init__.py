"""What can a user type? One function per verb of `proxyclip`; each imports what it needs when it runs."""
