"""Clients in other languages and by others' generators, and what they do with a real service."""
