"""The part that handler authors import: agents, job handlers and their context."""
