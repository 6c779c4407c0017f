"""What runs behind the trust boundary, or starts what does: the zygote and the child."""
