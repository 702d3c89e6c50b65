"""The worker: claims jobs from a queue and runs their handlers."""
