"""Every error that AgentQueue raises on purpose, under one root.

A message names the thing, the cause and the next step, so that it can be shown to a user as it is.
"""

from agentqueue.redaction import redact


class AgentQueueError(Exception):
    """The root of all errors raised on purpose.

    Passwords in URLs are removed from the message, since messages quote what they were given, and end in logs,
    conditions and terminals.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact(arg) if isinstance(arg, str) else arg for arg in args))


class UsageError(AgentQueueError, ValueError):
    """The caller passed something that can't be right; nothing was sent."""


class InvalidPayload(UsageError):
    """A payload that is not JSON, too large, too deep, or refused by the handler's model."""


class InvalidName(UsageError):
    """A job id, queue name, job name, tag or priority outside its alphabet or range."""


class InvalidSpec(UsageError):
    """An AgentQueue resource that breaks a rule; the message gives line, path and what to write instead."""


class NotFound(AgentQueueError, LookupError):
    """A job, queue, agent or file that is not known; the message offers the nearest known name."""


class JobNotFound(NotFound):
    """No job with this id is known: never enqueued, or its result's retention has passed."""


class JobFailed(AgentQueueError):
    """The job whose result was asked for is dead: its last error is the message."""


class JobCancelled(AgentQueueError):
    """The job whose result was asked for was cancelled."""


class ResultTimeout(AgentQueueError, TimeoutError):
    """The job had no result within the time given; it goes on."""


class QueueUnavailable(AgentQueueError, ConnectionError):
    """The Redis server does not answer, or refuses us; what was asked may or may not have happened."""


class QueueFull(AgentQueueError):
    """The Redis server is at `maxmemory` and refuses new jobs; running ones finish."""


class UnsupportedServer(AgentQueueError):
    """The server is too old, a cluster, a replica, evicts keys, or isn't Redis at all."""


class HandlerImportError(AgentQueueError, ImportError):
    """The module that holds the handlers does not import, or has no such agent."""
