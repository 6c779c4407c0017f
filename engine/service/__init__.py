"""The service behind the API: it accepts a task, looks it up, waits for it, follows it."""
