"""Agents, job handlers and their context, for authors of handlers."""
