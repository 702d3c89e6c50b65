"""Host `agentqueue up`: worker processes on this machine."""
