"""One isolation mechanism a file. Standard library only: these run inside the zygote and the child."""
