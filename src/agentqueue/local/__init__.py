"""An embedded server for laptops and tests, and the state file of a running `agentqueue up`."""
