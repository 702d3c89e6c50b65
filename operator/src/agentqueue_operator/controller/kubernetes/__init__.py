"""The Kubernetes API server: reads, writes, watches and the Lease."""
