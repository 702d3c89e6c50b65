"""AgentQueue: queues for AI agents.

Write handlers with `Agent` and `Context`, and enqueue jobs with `Client` or `SyncClient`.
"""

from typing import TYPE_CHECKING

from agentqueue.exports import lazy_exports

if TYPE_CHECKING:
    from agentqueue.agent.children import Child, ChildFailed
    from agentqueue.agent.context import Context
    from agentqueue.agent.declaration import JobDeclaration, declare
    from agentqueue.agent.definition import Agent, WorkerContext
    from agentqueue.agent.outcomes import (
        DurableError,
        Fatal,
        NotDone,
        OutcomeUnknown,
        Retry,
        Snooze,
        StepFailed,
        Throttled,
    )
    from agentqueue.agent.step_function import step
    from agentqueue.client import Client, JobStatus, SyncClient
    from agentqueue.errors import AgentQueueError
    from agentqueue.model.retry_policy import Backoff

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "AgentQueueError",
    "Backoff",
    "Child",
    "ChildFailed",
    "Client",
    "Context",
    "DurableError",
    "Fatal",
    "JobDeclaration",
    "JobStatus",
    "NotDone",
    "OutcomeUnknown",
    "Retry",
    "Snooze",
    "StepFailed",
    "SyncClient",
    "Throttled",
    "WorkerContext",
    "__version__",
    "declare",
    "step",
]

if not TYPE_CHECKING:  # a type checker would take any name of a module that has `__getattr__`
    __getattr__, __dir__ = lazy_exports(
        globals(),
        {
            "Agent": "agentqueue.agent.definition",
            "AgentQueueError": "agentqueue.errors",
            "Backoff": "agentqueue.model.retry_policy",
            "Child": "agentqueue.agent.children",
            "ChildFailed": "agentqueue.agent.children",
            "Client": "agentqueue.client",
            "Context": "agentqueue.agent.context",
            "DurableError": "agentqueue.agent.outcomes",
            "Fatal": "agentqueue.agent.outcomes",
            "JobDeclaration": "agentqueue.agent.declaration",
            "JobStatus": "agentqueue.client",
            "NotDone": "agentqueue.agent.outcomes",
            "OutcomeUnknown": "agentqueue.agent.outcomes",
            "Retry": "agentqueue.agent.outcomes",
            "Snooze": "agentqueue.agent.outcomes",
            "StepFailed": "agentqueue.agent.outcomes",
            "step": "agentqueue.agent.step_function",
            "SyncClient": "agentqueue.client",
            "Throttled": "agentqueue.agent.outcomes",
            "WorkerContext": "agentqueue.agent.definition",
            "declare": "agentqueue.agent.declaration",
        },
    )
