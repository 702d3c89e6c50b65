"""Exceptions that a handler raises to control how its job ends."""

from datetime import timedelta

from agentqueue.errors import UsageError
from agentqueue.model.numbers import plain_number
from agentqueue.model.retry_policy import Seconds, seconds


class Retry(Exception):
    """Raised by a handler to end this attempt as failed and try the job again.

    The next attempt starts after `after` (seconds or a timedelta), or after the job's backoff. While the worker drains
    (`ctx.should_yield`), the job is released instead and no attempt is counted. A negative `after` counts as 0.
    """

    def __init__(self, message: str = "", *, after: Seconds | None = None) -> None:
        self.after: float | None = None
        """Delay before the next attempt, in seconds. None: the job's backoff decides."""
        if after is not None:
            is_past = after < timedelta() if isinstance(after, timedelta) else (plain_number(after) or 0) < 0
            self.after = 0.0 if is_past else seconds(after, "after")
        super().__init__(message or ("try again" if self.after is None else f"try again after {self.after:g} s"))


class Fatal(Exception):
    """Raised by a handler to make the job a dead letter at once, because another attempt cannot succeed."""


class DurableError(UsageError, Fatal):
    """A durable call of the context cannot be made as it is written. The job becomes a dead letter at once."""
