"""Exceptions that a handler raises to control how its job ends."""

from datetime import timedelta
from typing import Final

from agentqueue.errors import InvalidPayload, UsageError
from agentqueue.model.numbers import plain_number
from agentqueue.model.retry_policy import Seconds, seconds

MIN_SNOOZE_S: Final = 0.1
"""Shortest snooze, in seconds, so that a job that always snoozes does not keep a worker busy."""


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


class Snooze(Exception):
    """Raised by a handler to run the job again later without an attempt or a slot: the job can't go on now.

    It is for causes outside of the job, which end by themselves: a provider that answers 429 or 503, a lock that is
    taken, a budget that is used up. `Retry(after=)` counts as an attempt, and a snooze does not, so a job may snooze
    without end. A job that expires (arq's `_expires`) does so at its time.

    Args:
        message: Why the job can't go on. `agentqueue status` shows it.
        after: Time until the job runs again, in seconds or as a timedelta. At least 0.1 s.
    """

    def __init__(self, message: str = "", *, after: Seconds) -> None:
        is_short = after < timedelta() if isinstance(after, timedelta) else (plain_number(after) or 0) < 0
        self.after: float = MIN_SNOOZE_S if is_short else max(seconds(after, "after"), MIN_SNOOZE_S)
        super().__init__(message or f"again in {self.after:g} s")


class Suspended(BaseException):
    """Raised in a plain `def` handler by the durable call that waits, when the job goes on to wait without a slot.

    It is no error. Let it pass: the handler runs again later. Async handlers get CancelledError instead.
    """


class Fatal(Exception):
    """Raised by a handler to make the job a dead letter at once, because another attempt cannot succeed."""


class NotDone(Exception):
    """Raised by a step with `once=True`, or returned by its `verify`: nothing has happened, so it may be called again.

    Every other exception of such a step is its final outcome.
    """


class OutcomeUnknown(Exception):
    """The outcome of a step with `once=True` is not known, since it was cut off. It is not called again by itself.

    The job becomes a dead letter with the reason `outcome-unknown`, and `agentqueue resolve` says how it goes on. A
    step may raise it too, such as after a timeout of its provider.
    """


class StepFailed(Exception):
    """A step with `once=True` has raised an exception, which is its final outcome in this and in every later run."""

    def __init__(self, step: str, type: str, message: str) -> None:  # noqa: A002  # the public name
        self.step = step
        """Name and number of the step, such as `pay#1`."""
        self.type = type
        """Class name of the exception."""
        self.message = message
        super().__init__(f'step "{step}" has failed with {type}: {message}')


class InvalidCheckpoint(InvalidPayload, Fatal):
    """A checkpoint is not JSON or too large. The job becomes a dead letter at once, since a rerun would do the same."""


class DurableError(UsageError, Fatal):
    """A durable call of the context cannot be made as it is written. The job becomes a dead letter at once."""
