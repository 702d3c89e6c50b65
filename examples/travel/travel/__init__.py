"""A private-jet broker run by six agents, the first user of AgentQueue."""
