"""What `ctx.limit` does: it reserves a call under limits that all workers share, and settles it afterwards."""

from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Protocol

from agentqueue.agent.outcomes import DurableError
from agentqueue.model.exceptions import describe_value
from agentqueue.model.numbers import plain_number
from agentqueue.model.retry_policy import Seconds, seconds


class LimitUse:
    """One call under limits, as `async with ctx.limit(...) as use:` gives it."""

    def __init__(self, names: Sequence[str], reserved: int | None = None) -> None:
        self.names = names
        """Names of the limits, as the call gives them."""
        self.reserved = reserved
        """Units that are reserved; None if none of the limits counts units."""
        self.units: int | None = None
        """Units that the call has taken. Set it when the provider says so; without it, it counts as reserved."""
        self.refusal: Refusal | None = None

    def throttled(self, retry_after: Seconds | None = None, *, limit: str | None = None, why: str = "429") -> None:
        """Note that the provider has refused the call, so that the limit rests for all workers.

        Unlike `raise Throttled(...)`, the handler goes on; its next `ctx.limit` waits until the rest is over.

        Args:
            retry_after: Time for which the provider asks, in seconds or as a timedelta. By default each rest in a row
                is twice as long as the one before.
            limit: The limit that rests, by default the first one that the call names.
            why: Kept with the rest, for people who look into it.

        Raises:
            DurableError: The call does not name the limit.
        """
        name = limit or self.names[0]
        if name not in self.names:
            raise DurableError(
                f"ctx.limit({', '.join(self.names)}) does not name the limit {name!r:.80} that is to rest"
            )
        self.refusal = Refusal(name, None if retry_after is None else seconds(retry_after, "retry_after"), why)

    def count(self) -> int | None:
        """Return the units as a whole number, None if the handler has not set them.

        Raises:
            DurableError: They are not a number, or below 0.
        """
        if self.units is None:
            return None
        number = plain_number(self.units)
        if number is None or not 0 <= number < float("inf"):
            raise DurableError(f"use.units = {describe_value(self.units, repr, limit=80)} must be a number from 0 on")
        return round(number)


class Refusal:
    """A provider's refusal of a call."""

    def __init__(self, limit: str, retry_after: float | None, why: str) -> None:
        self.limit = limit
        self.retry_after = retry_after
        """Seconds; None if the provider has not said."""
        self.why = why


class LimitCalls(Protocol):
    """The worker's part of a job's calls under limits. Its coroutines are awaited in the event loop."""

    def enter(self, names: Sequence[str], units: int | None) -> Coroutine[Any, Any, LimitUse]:
        """Wait until there is room for a call, and reserve it.

        Args:
            names: Names of the limits, checked.
            units: Units to reserve; None for as many as calls usually take.
        """
        ...

    def exit(self, use: LimitUse, exc: BaseException | None) -> Coroutine[Any, Any, None]:
        """Settle a call whose block has ended, with this exception if it has raised one."""
        ...


class LimitBlock:
    """The block of `ctx.limit`: `async with` in async handlers and steps, `with` in the threads of plain ones."""

    def __init__(
        self,
        calls: LimitCalls,
        names: Sequence[str],
        units: int | None,
        wait: Callable[[Coroutine[Any, Any, Any]], Any],
    ) -> None:
        self._calls = calls
        self._names = names
        self._units = units
        self._wait = wait
        """Returns what a coroutine returns, in a thread of a plain function; see `Context`."""
        self._use: LimitUse | None = None

    async def __aenter__(self) -> LimitUse:
        self._use = await self._calls.enter(self._names, self._units)
        return self._use

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._use is not None
        await self._calls.exit(self._use, exc)

    def __enter__(self) -> LimitUse:
        use: LimitUse = self._wait(self.__aenter__())
        return use

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._wait(self.__aexit__(kind, exc, traceback))
