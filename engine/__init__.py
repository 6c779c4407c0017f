"""Accepts tasks, runs them in sandboxes, and remembers what happened.

How the parts fit together: README.md beside this file.
"""
