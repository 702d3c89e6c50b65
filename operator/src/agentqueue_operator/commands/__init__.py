"""Commands that the operator's package adds to the `agentqueue` command line."""
