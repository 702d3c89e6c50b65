"""Durable agents, and the services that they call."""
