"""Host 2: `agentqueue up` on one machine."""
