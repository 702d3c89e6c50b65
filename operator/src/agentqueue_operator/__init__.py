"""The operator: scales workers and reconciles Kubernetes objects, or runs workers on one machine."""
