"""Host 1: the operator in a Kubernetes cluster."""
