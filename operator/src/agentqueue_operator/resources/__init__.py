"""Kubernetes objects of an AgentQueue: render them, compare them with the cluster, plan the changes. Pure functions."""
