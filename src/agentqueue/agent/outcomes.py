"""Exceptions that a handler raises to control how its job ends."""

from datetime import timedelta

from agentqueue.model.numbers import plain_number
from agentqueue.model.retry_policy import Seconds, seconds


class Retry(Exception):
    """Raised by a handler: this attempt failed, try again, after `after` (seconds or timedelta) or the usual backoff.

    While the worker drains (`ctx.should_yield`) it hands the job back instead, and no attempt is burnt. A negative
    `after` (until a moment that has passed by now) is none: the job is tried again at once.
    """

    def __init__(self, message: str = "", *, after: Seconds | None = None) -> None:
        self.after: float | None = None
        """Delay before the next attempt, in seconds. None: the job's backoff decides."""
        if after is not None:
            is_past = after < timedelta() if isinstance(after, timedelta) else (plain_number(after) or 0) < 0
            self.after = 0.0 if is_past else seconds(after, "after")
        super().__init__(message or ("try again" if self.after is None else f"try again after {self.after:g} s"))


class Fatal(Exception):
    """Raised by a handler: trying again is of no use; the job goes straight to the dead letters."""
