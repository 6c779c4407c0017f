"""What a run may do: the policy files as types, and the system calls that they grant."""
