"""Measures the sandbox and the service beside plain python and bwrap in the same run."""
