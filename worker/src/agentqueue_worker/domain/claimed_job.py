"""A claimed job, as admission, the runner and the outcomes see it."""

from typing import Final, Generic, TypeVar

from agentqueue.model.job import JobRecord
from agentqueue.model.outcomes import Claimed

EARLIEST_TIME_MS: Final = 1e12
"""Smallest score that is a time (the year 2001). arq's `abort()` writes the score 1 to bring a job forward."""
Handler_co = TypeVar("Handler_co", covariant=True)


class ClaimedJob(Generic[Handler_co]):
    """A claimed job with its decoded record and its handler.

    The handler is None if the record can't be read, or if this worker has no handler for the job's name.
    """

    __slots__ = ("claimed", "handler", "id", "record")

    started_ms: int = 0
    """When this worker started the job, in ms since the epoch. 0 if it has not started it."""

    def __init__(self, claimed: Claimed, record: JobRecord, handler: Handler_co) -> None:
        self.id = claimed.id
        self.claimed = claimed
        self.record = record
        self.handler = handler

    @property
    def has_journal(self) -> bool:
        """True if Redis keeps a journal of the job."""
        return "journal" in self.claimed.meta

    @property
    def has_stream(self) -> bool:
        """True if the job has emitted events."""
        return "stream" in self.claimed.meta

    @property
    def attempts(self) -> int:
        """Number of attempts that ended in success or failure."""
        return self.claimed.attempts

    @property
    def deliveries(self) -> int:
        """Number of times that a worker started the job."""
        return self.claimed.delivery - 1
