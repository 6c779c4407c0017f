"""Keeps zygotes and ready children."""
