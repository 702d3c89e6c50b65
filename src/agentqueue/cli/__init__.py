"""The `agentqueue` command: one module for each group of commands."""
