"""The calls of the HTTP interface."""
