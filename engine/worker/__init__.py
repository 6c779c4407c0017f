"""Takes tasks from the queue and runs each attempt in a sandbox."""
