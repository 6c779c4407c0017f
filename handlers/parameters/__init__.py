"""The parameters of each task type. Standard library and msgspec only, because the API imports this package."""
