"""Log lines for what may happen many times a second: refused tokens, a Redis that is away, more requests than fit."""

import asyncio
import contextvars
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

PERIOD_SECONDS: Final = 10.0
MOST_PEERS: Final = 20
"""Addresses that one line names."""

log = structlog.get_logger("agentqueue.console")


@dataclass(slots=True)
class _Repeats:
    """What has happened since an event's last line."""

    timer: asyncio.TimerHandle
    count: int = 0
    fields: dict[str, Any] = field(default_factory=dict)
    peers: set[str] = field(default_factory=set)


class Lines:
    """Writes the first of equal events at once, and those that follow as one line a period with their `count`.

    Args:
        period: seconds between two lines of the same event.
    """

    def __init__(self, period: float = PERIOD_SECONDS) -> None:
        self.period = period
        self._repeats: dict[str, _Repeats] = {}
        self._lasting: set[str] = set()

    def warn(self, event: str, *, peer: str = "", **fields: Any) -> None:
        """Write or count an event. Needs a running event loop."""
        self._lasting.add(event)
        repeats = self._repeats.get(event)
        if repeats is None:
            log.warning(event, **({"peer": peer} if peer else {}), **fields)
            self._repeats[event] = _Repeats(self._timer(event))
            return
        repeats.count += 1
        repeats.fields = fields
        if peer and len(repeats.peers) < MOST_PEERS:
            repeats.peers.add(peer)

    def over(self, event: str, end: str) -> None:
        """Write the line `end` if the event has happened since it was last over."""
        if event in self._lasting:
            self._lasting.discard(event)
            self._flush(event)
            log.info(end)

    def close(self) -> None:
        """Write what has been counted, and start no more timers."""
        for event in list(self._repeats):
            self._flush(event)

    def _timer(self, event: str) -> asyncio.TimerHandle:
        # In an empty context: a line about many requests must not carry the first one's address and path.
        loop = asyncio.get_running_loop()
        return loop.call_later(self.period, self._tick, event, context=contextvars.Context())

    def _tick(self, event: str) -> None:
        if self._flush(event):
            self._repeats[event] = _Repeats(self._timer(event))

    def _flush(self, event: str) -> bool:
        """Forget the event's repeats. Return whether there were any, which are written."""
        repeats = self._repeats.pop(event, None)
        if repeats is None:
            return False
        repeats.timer.cancel()
        if not repeats.count:
            return False
        peers = {"peers": sorted(repeats.peers)} if repeats.peers else {}
        log.warning(event, count=repeats.count, **peers, **repeats.fields)
        return True
