"""Scaling of worker Deployments, without ending a pod that runs a job."""
