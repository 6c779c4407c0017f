"""The policy files as types, and the system calls that they grant."""
