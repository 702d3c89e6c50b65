"""Two durable agents, `research` and `buyer`, and the services that they call."""
