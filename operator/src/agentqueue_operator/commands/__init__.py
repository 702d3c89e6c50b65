"""Commands that the operator package adds to the `agentqueue` command line."""
