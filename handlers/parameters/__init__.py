"""What a task may ask for. The standard library and msgspec only, because the API imports this package."""
