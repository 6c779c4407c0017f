"""All that is known of Redis and arq: the queue of ids, and live events."""
