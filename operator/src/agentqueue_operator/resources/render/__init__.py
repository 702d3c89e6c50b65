"""Render the Kubernetes objects of an AgentQueue. Pure; the operator and `agentqueue render` share it."""

from agentqueue_operator.resources.render.inputs import Images, RenderContext
from agentqueue_operator.resources.render.manifests import render
from agentqueue_operator.resources.render.names import console_name, redis_name, worker_name
from agentqueue_operator.resources.render.references import Reference, references_of

__all__ = [
    "Images",
    "Reference",
    "RenderContext",
    "console_name",
    "redis_name",
    "references_of",
    "render",
    "worker_name",
]
