"""The way out: a forward proxy for one run, which reaches what its policy names and nothing else."""
