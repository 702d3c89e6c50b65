"""Access to the queues in Redis, shared by both hosts."""
