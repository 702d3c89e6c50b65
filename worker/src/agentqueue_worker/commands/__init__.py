"""Commands that the worker's package adds to the `agentqueue` command line."""
