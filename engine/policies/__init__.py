"""Loads, checks, shows, compares and locks the policy files."""
