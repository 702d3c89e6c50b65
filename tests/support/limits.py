"""A limit as the paper has it, beside the script: what it may grant, in plain Python."""

from dataclasses import dataclass, field

from agentqueue.model.limits import WINDOW_COUNTS, Limit


@dataclass
class ModelCall:
    """A call that was granted."""

    count: int
    """Number of the count in which it started."""
    units: int
    epoch: int
    held: bool = True
    """The worker that made it holds its job."""
    settled: bool = False


@dataclass
class LimitModel:
    """What a limit has granted. Times are of the server's clock, moved on by the test's time travel."""

    limit: Limit
    calls: list[ModelCall] = field(default_factory=list)
    counts: dict[int, list[int]] = field(default_factory=dict)
    """Number of the count -> requests and units."""
    epoch: int = 0
    rest_ms: int = 0

    def count_of(self, now_ms: int) -> int:
        """Return the number of the count at this time."""
        return int(now_ms // self.limit.bucket_ms)

    def used(self, now_ms: int, index: int) -> int:
        """Return what the window has at this time: requests (0) or units (1)."""
        first = self.count_of(now_ms) - WINDOW_COUNTS
        return sum(count[index] for number, count in self.counts.items() if number >= first)

    @property
    def running(self) -> int:
        """Return the number of calls that run, and whose worker lives."""
        return sum(call.held and not call.settled for call in self.calls)

    def has_room(self, now_ms: int, units: int) -> bool:
        """Return whether window and concurrency have room for a call."""
        limit = self.limit
        return (
            self.used(now_ms, 0) + 1 <= (limit.requests_per_minute or 10**9)
            and self.used(now_ms, 1) + units <= (limit.units_per_minute or 10**9)
            and self.running + 1 <= (limit.concurrent or 10**9)
        )

    def grant(self, now_ms: int, units: int) -> ModelCall:
        """Count a call that starts now."""
        call = ModelCall(self.count_of(now_ms), units, self.epoch)
        self.calls.append(call)
        self.add(call.count, 1, units)
        return call

    def add(self, count: int, requests: int, units: int) -> None:
        """Add to a count."""
        found = self.counts.setdefault(count, [0, 0])
        found[0] += requests
        found[1] += units

    def settle(self, call: ModelCall, now_ms: int, units: int | None) -> None:
        """Correct the units of a call that has ended."""
        call.settled = True
        if units is None:
            return
        more = units - call.units
        if more > 0:
            self.add(self.count_of(now_ms), 0, more)
        elif self.limit.refund and call.count >= self.count_of(now_ms) - WINDOW_COUNTS:
            self.add(call.count, 0, more)
