"""What the API asks: accept a task, look it up, wait for it, follow it."""
