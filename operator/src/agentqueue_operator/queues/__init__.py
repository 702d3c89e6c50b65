"""Access to the queues in Redis, the same for both hosts."""
