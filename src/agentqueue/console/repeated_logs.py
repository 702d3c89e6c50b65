"""Log lines for events that can happen many times per second, such as refused tokens or a Redis outage."""

import asyncio
import contextvars
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

PERIOD_SECONDS: Final = 10.0
"""Time between two lines of the same event, in seconds. Callers cannot cause more lines of it."""
MAX_PEERS: Final = 20
"""Maximum number of addresses in one line, so that many callers do not make it long."""

log = structlog.get_logger("agentqueue.console")


@dataclass(slots=True)
class _Repeats:
    """The occurrences of an event since its last line."""

    timer: asyncio.TimerHandle
    count: int = 0
    fields: dict[str, Any] = field(default_factory=dict)
    peers: set[str] = field(default_factory=set)


class RepeatedLogs:
    """Writes the first occurrence of an event at once, and later ones as one line per period with their `count`.

    Args:
        period: Time between two lines of the same event, in seconds.
    """

    def __init__(self, period: float = PERIOD_SECONDS) -> None:
        self.period = period
        self._repeats: dict[str, _Repeats] = {}
        self._active: set[str] = set()
        """Events that have occurred since their last recovery."""

    def warn(self, event: str, *, peer: str = "", **fields: Any) -> None:
        """Write or count an occurrence of an event. Needs a running event loop."""
        self._active.add(event)
        repeats = self._repeats.get(event)
        if repeats is None:
            log.warning(event, **({"peer": peer} if peer else {}), **fields)
            self._start_timer(event)
            return
        repeats.count += 1
        repeats.fields = fields
        if peer and len(repeats.peers) < MAX_PEERS:
            repeats.peers.add(peer)

    def recovered(self, event: str, recovery: str) -> None:
        """Write the line `recovery`, if the event has occurred since the last recovery."""
        if event in self._active:
            self._active.discard(event)
            self._flush(event)
            log.info(recovery)

    def close(self) -> None:
        """Write the counted occurrences and stop all timers."""
        for event in list(self._repeats):
            self._flush(event)

    def _start_timer(self, event: str) -> None:
        def end_period() -> None:
            if self._flush(event):
                self._start_timer(event)

        # An empty context: a line about many requests must not have the address and path of the first one.
        loop = asyncio.get_running_loop()
        self._repeats[event] = _Repeats(loop.call_later(self.period, end_period, context=contextvars.Context()))

    def _flush(self, event: str) -> bool:
        """Write the event's counted occurrences and forget them. Return whether there were any."""
        repeats = self._repeats.pop(event, None)
        if repeats is None:
            return False
        repeats.timer.cancel()
        if not repeats.count:
            return False
        peers = {"peers": sorted(repeats.peers)} if repeats.peers else {}
        log.warning(event, count=repeats.count, **peers, **repeats.fields)
        return True
