"""Training: from a job's configuration and a token store to run records."""
