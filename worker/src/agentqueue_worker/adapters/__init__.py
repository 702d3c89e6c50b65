"""The worker's edges: the user's code, arq programs, metrics and logs."""
