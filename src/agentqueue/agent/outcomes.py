"""Exceptions that a handler raises to control how its job ends."""

from agentqueue.model.retry_policy import Seconds, delay_seconds


class Retry(Exception):
    """Raised by a handler: this attempt failed, try again, after `after` (seconds or timedelta) or the usual backoff.

    While the worker drains (`ctx.should_yield`) it hands the job back instead, and no attempt is burnt. A negative
    `after` (until a moment that has passed by now) is none: the job is tried again at once.
    """

    def __init__(self, message: str = "", *, after: Seconds | None = None) -> None:
        self.after = None if after is None else delay_seconds(after)
        super().__init__(message or ("try again" if self.after is None else f"try again after {self.after:g} s"))


class Fatal(Exception):
    """Raised by a handler: trying again is of no use; the job goes straight to the dead letters."""
