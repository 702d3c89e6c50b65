"""What a handler gets from `ctx.wait_for` and `ctx.first`."""

from abc import ABC, abstractmethod
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that somebody has sent to the job."""

    name: str
    data: Any
    """JSON types, as they were sent."""
    sender: str | None = None
    """Who has sent it, as the sender says."""
    sent_at: datetime | None = None
    """When it was sent, in UTC, by the clock of Redis."""


@dataclass(frozen=True, slots=True)
class First:
    """The first of several waits that has ended."""

    name: str
    """Its name in the call of `ctx.first`."""
    value: Any
    """What the wait returns: a `Signal`, or None for a sleep."""


class Waiting(ABC, Generic[T_co]):
    """A wait of a job. It begins when it is awaited, or given to `ctx.first`."""

    __slots__ = ()

    @abstractmethod
    def begin(self) -> Coroutine[Any, Any, T_co]:
        """Return the coroutine that waits."""
        ...

    def __await__(self) -> Generator[Any, None, T_co]:
        return self.begin().__await__()
