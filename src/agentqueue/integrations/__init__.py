"""Bridges to other libraries, one module for each. A module needs the extra of its name: `agentqueue[pydantic-ai]`."""
