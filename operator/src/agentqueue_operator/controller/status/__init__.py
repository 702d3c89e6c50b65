"""Status, conditions and events of an AgentQueue."""
