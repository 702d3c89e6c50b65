"""The running worker: the claim loop, one task for each job, leases and the drain."""
