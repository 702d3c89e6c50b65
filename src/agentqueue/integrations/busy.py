"""Providers that answer 429 or 5xx: the job snoozes, and burns no attempt.

The exceptions of openai, anthropic, httpx, pydantic-ai and others are recognized by their attributes, so that none of
these libraries is imported.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any, Final

from agentqueue.agent.context import Context
from agentqueue.agent.outcomes import Snooze, StepFailed
from agentqueue.clock import now_ms

TOO_MANY_REQUESTS: Final = 429
FINAL_STATUSES: Final = (501, 505)
"""Server errors that another request meets again: not implemented, and an HTTP version that is not supported."""
MAX_RETRY_AFTER_S: Final = 3600.0
"""Longest delay that a provider's Retry-After may ask for, in seconds."""
MAX_BACKOFF_S: Final = 60.0
"""Longest delay without Retry-After, in seconds."""
MAX_REASON: Final = 200
"""Maximum length of the provider's message in the snooze, in characters."""


@asynccontextmanager
async def snooze_when_busy(ctx: Context) -> AsyncIterator[None]:
    """Return a context manager that turns a provider's 429 or 5xx into `Snooze`. Use it with `async with`.

    The job runs again after the provider's Retry-After, at most an hour, or after 2 to 60 seconds. It keeps its steps.

    Raises:
        Snooze: See above. Other exceptions pass unchanged.
    """
    try:
        yield
    except Exception as exc:
        snooze_if_busy(ctx, exc)
        raise


def snooze_if_busy(ctx: Context, error: BaseException) -> None:
    """Raise `Snooze` if an error is a provider's 429 or 5xx. See `snooze_when_busy`.

    Raises:
        Snooze: It is.
    """
    snooze = snooze_for(error, starts=ctx.delivery, now_s=now_ms() / 1000)
    if snooze is not None:
        raise snooze from error


def snooze_for(error: BaseException, *, starts: int, now_s: float) -> Snooze | None:
    """Return the Snooze for the error of an HTTP client, or None if it is not a provider's 429 or 5xx.

    An exception group and an error that another one has caused count too. `StepFailed` does not: it is final.

    Args:
        error: The error.
        starts: How often the job has started. Without Retry-After the delay doubles with each start, up to a minute.
        now_s: The time in seconds since the epoch, for a Retry-After that is a date.
    """
    for one in _with_causes(error):
        response = getattr(one, "response", None)
        status = _status_of(one, response)
        if status == TOO_MANY_REQUESTS or (500 <= status < 600 and status not in FINAL_STATUSES):
            asked = _retry_after(one, response, now_s)
            after = min(MAX_BACKOFF_S, 2.0 ** min(starts, 6)) if asked is None else min(asked, MAX_RETRY_AFTER_S)
            return Snooze(f"the provider answers {status}: {one}"[:MAX_REASON], after=after)
    return None


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, the errors of a group, and what caused it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen and not isinstance(error, StepFailed):
        seen.add(id(error))
        yield error
        if isinstance(error, BaseExceptionGroup):
            for one in error.exceptions:
                yield from _with_causes(one)
        error = error.__cause__


def _status_of(error: BaseException, response: Any) -> int:
    """Return the HTTP status of an error, 0 if it has none."""
    status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    return status if type(status) is int else 0


def _retry_after(error: BaseException, response: Any, now_s: float) -> float | None:
    """Return the seconds that the provider asks to wait, None if it does not say."""
    headers = getattr(response, "headers", None) or getattr(error, "headers", None)
    if not isinstance(headers, Mapping):
        return None
    milliseconds = _number_of(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after") or headers.get("Retry-After")
    seconds = _number_of(text)
    if seconds is not None or text is None:
        return seconds
    try:
        return max(parsedate_to_datetime(text).timestamp() - now_s, 0.0)
    except (TypeError, ValueError):
        return None


def _number_of(text: Any) -> float | None:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if 0 <= number < float("inf") else None
