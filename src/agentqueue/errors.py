"""Every error that AgentQueue raises on purpose, with one base class.

A message names the subject, the cause and the next step, so that it can be shown to users unchanged.
"""

from agentqueue.redaction import redact


class AgentQueueError(Exception):
    """Base class of all errors that AgentQueue raises on purpose.

    Passwords in URLs are removed from the message, since messages quote arguments and appear in logs, conditions and
    terminals.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(redact(arg) if isinstance(arg, str) else arg for arg in args))


class UsageError(AgentQueueError, ValueError):
    """An argument is not valid. Nothing was sent."""


class InvalidPayload(UsageError):
    """A payload is not JSON, too large, too deep, or refused by the handler's annotation."""


class InvalidName(UsageError):
    """A job ID, queue name, job name, tag or priority is outside its alphabet or range."""


class InvalidSpec(UsageError):
    """An AgentQueue resource breaks a rule. The message has the line, the path and a correction."""


class NotFound(AgentQueueError, LookupError):
    """A job, queue, agent or file is not known. The message has the nearest known name."""


class JobNotFound(NotFound):
    """A job was never enqueued, or the retention of its result has passed."""


class JobEnded(AgentQueueError):
    """The job has ended, so that it takes no signal any more."""


class MailboxFull(AgentQueueError):
    """The job has got as many signals as a job may get, or they are too large together."""


class JobFailed(AgentQueueError):
    """The job whose result was requested is dead. The message has its last error."""


class JobCancelled(AgentQueueError):
    """The job whose result was requested was cancelled."""


class ResultTimeout(AgentQueueError, TimeoutError):
    """The job has not ended within the timeout. It goes on."""


class QueueUnavailable(AgentQueueError, ConnectionError):
    """The Redis server does not answer, or refuses the connection. The call may or may not have taken effect."""


class QueueFull(AgentQueueError):
    """The Redis server is at `maxmemory` and refuses new jobs. Running jobs finish."""


class JournalUnreadable(AgentQueueError):
    """The journal of a job was overwritten by another program. It is kept, since only a person can know what to do."""


class UnsupportedServer(AgentQueueError):
    """The server is too old, a cluster, a replica, evicts keys, or is not a Redis server."""


class HandlerImportError(AgentQueueError, ImportError):
    """The module of the handlers cannot be imported, or does not have the agent."""
