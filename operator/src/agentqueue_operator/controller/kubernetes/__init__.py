"""Access to the Kubernetes API server: reads, writes, watches and the Lease."""
