"""The reference page of the AgentQueue resource, generated from its models."""
