"""From an AgentQueue to the Kubernetes objects that it needs, and back: pure."""
