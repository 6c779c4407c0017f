"""The console: pages for people, which ask the service as any client does."""
