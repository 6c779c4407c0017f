"""Settings, keys, named scripts and model files: what an operator configures."""
