"""The code behind the trust boundary: the zygote, and the child that it forks."""
