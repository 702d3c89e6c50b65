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


class Throttled(Snooze):
    """Raised by a handler inside `ctx.limit`: the provider has refused the call, such as with 429.

    The limit rests for all workers, and the job runs again when the rest is over. It counts as no attempt. A job that
    is throttled for longer than `maxThrottledSeconds` of the limit becomes a dead letter with the reason `throttled`.

    Args:
        limit: Name of the limit.
        retry_after: Time for which the provider asks, in seconds or as a timedelta. By default each rest in a row is
            twice as long as the one before, from a second to a minute.
        message: Why the provider has refused the call.
    """

    def __init__(self, limit: str, *, retry_after: Seconds | None = None, message: str = "429") -> None:
        self.limit = limit
        self.message = message
        self.retry_after = None if retry_after is None else seconds(retry_after, "retry_after")
        super().__init__(f"limit {limit} rests ({message})", after=self.retry_after or MIN_SNOOZE_S)


class Suspended(BaseException):
    """Raised in a plain `def` handler by the durable call that waits, when the job goes on to wait without a slot.

    It is no error. Let it pass: the handler runs again later. Async handlers get CancelledError instead.
    """


class Fatal(Exception):
    """Raised by a handler to make the job a dead letter at once, because another attempt cannot succeed."""


class ThrottledTooLong(Fatal):
    """A provider has refused a job's calls for longer than its limit allows. The job becomes a dead letter."""


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
