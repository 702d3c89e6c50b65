"""AgentQueue: queues for AI agents.

Handlers are written with `Agent` and `Context`, jobs are enqueued with `agentqueue.client`. Names are loaded when
first used, so that a program that only enqueues does not pay for what only workers need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from agentqueue.agent import Agent, Backoff, Context, Fatal, Retry, WorkerContext
    from agentqueue.client import Client, JobStatus, SyncClient
    from agentqueue.errors import AgentQueueError

__version__ = "0.1.0"

_HOME: Final = {
    "Agent": "agentqueue.agent",
    "AgentQueueError": "agentqueue.errors",
    "Backoff": "agentqueue.agent",
    "Client": "agentqueue.client",
    "Context": "agentqueue.agent",
    "Fatal": "agentqueue.agent",
    "JobStatus": "agentqueue.client",
    "Retry": "agentqueue.agent",
    "SyncClient": "agentqueue.client",
    "WorkerContext": "agentqueue.agent",
}

__all__ = [
    "Agent",
    "AgentQueueError",
    "Backoff",
    "Client",
    "Context",
    "Fatal",
    "JobStatus",
    "Retry",
    "SyncClient",
    "WorkerContext",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'agentqueue' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
