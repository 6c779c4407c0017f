"""Reads request bodies strictly, large ones in a process of their own."""
