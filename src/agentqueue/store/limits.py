"""Limits by name, which all workers of a server share: their definitions, and the calls that count under them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from agentqueue.keys import IN_PROGRESS, LIMIT, LIMIT_CALLS, LIMIT_LINE, LIMITS, Level
from agentqueue.model.limits import WINDOW_COUNTS, Limit, decode_limit, encode_limit
from agentqueue.store.scripts import load
from agentqueue.store.server import Server

NO_REST_MS: Final = 0


@dataclass(frozen=True, slots=True)
class LimitCall:
    """A call that a running job makes under limits."""

    owner: str
    """Owner of the job's lease."""
    number: int
    """Number of the call, which the owner uses once."""
    job_id: str
    names: Sequence[str]
    """Names of the limits, sorted."""
    level: Level
    tenant: str = ""
    """Tenant of the job, for limits that every tenant has for itself, and for the order of the line."""
    place: int = 0
    """Place among the calls of the job that wait now, from 0. A call that asks again keeps it."""
    units: int | None = None
    """Units that it takes; None for as many as calls usually take."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The call is reserved, and starts now."""

    now_ms: int
    units: Mapping[str, int] = field(default_factory=dict)
    """Units that are reserved, by the limit."""
    epochs: Mapping[str, int] = field(default_factory=dict)
    """Number of rests of each limit so far. A 429 of this call begins one if the number is still the same."""
    max_throttled_ms: Mapping[str, int] = field(default_factory=dict)
    """Time for which refusals may keep a job from going on, by the limit."""


@dataclass(frozen=True, slots=True)
class Waits:
    """The call has its place in the line."""

    now_ms: int
    ask_ms: int
    """Time until it asks again, in ms. A call that leaves the line may wake it before."""
    limit: str
    """The limit that has no room for it."""
    why: str
    """`rest`, `probe`, `ramp`, `window`, `pace` or `concurrent`."""
    rest_ms: int = NO_REST_MS
    """When the rest of the limit ends, in ms since the epoch; 0 if it does not rest."""
    rest_why: str = ""
    """Why it rests, such as 429."""
    max_throttled_ms: int = 0
    """Time for which refusals may keep a job from going on."""


@dataclass(frozen=True, slots=True)
class Settled:
    """The call is settled."""

    now_ms: int
    rests_until_ms: int
    """When the rest of the limit ends that was to rest, in ms since the epoch; 0 if it does not."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The call can never start."""

    limit: str
    max_units: int | None = None
    """Units that the limit has, of which the call wants more; None if there is no such limit."""


@dataclass(frozen=True, slots=True)
class LimitView:
    """A limit as people see it."""

    name: str
    limit: Limit
    source: str
    """Who has defined it, such as the AgentQueue."""
    waiting: int
    """Calls that stand in its line."""
    rests: int = 0
    """Number of rests so far. It starts again if the limit was not used for two hours."""
    rests_until_ms: int = NO_REST_MS
    """When its rest ends, in ms since the epoch; 0 if it does not rest."""
    rest_why: str = ""
    requests: int = 0
    """Requests in the window."""
    units: int = 0
    """Units in the window."""
    running: int = 0
    """Calls that run now. Only limits with `concurrent` count them."""


class Limits:
    """The limits of a server. Every method is one round trip unless its docstring says otherwise."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._reserve = load("limit_reserve")
        self._settle = load("limit_settle", allow_oom=True)
        self._leave = load("limit_leave", allow_oom=True)
        self._lines = load("limit_lines", allow_oom=True)
        self._define = load("limit_define")

    async def reserve(self, queue: str, call: LimitCall) -> Granted | Waits | Refused:
        """Reserve a call under all its limits or none, or give it a place in a line.

        Args:
            queue: queue of the job.
            call: the call. Sent again, it is counted once.

        Raises:
            QueueFull, QueueUnavailable: the call may be reserved or not; send it again.
        """
        args: list[Any] = [call.owner, call.number, call.job_id, call.place, int(call.level), call.tenant]
        args += ["" if call.units is None else call.units, *call.names]
        kind, *rest = await self._server.run(self._reserve, queue, args)
        match kind:
            case b"granted":
                now_ms, *facts = rest
                units = {name: int(float(number)) for name, number in zip(call.names, facts[::3], strict=True)}
                epochs = {name: int(number) for name, number in zip(call.names, facts[1::3], strict=True)}
                return Granted(now_ms, units, epochs, dict(zip(call.names, facts[2::3], strict=True)))
            case b"waits":
                now_ms, ask_ms, name, why, rest_ms, rest_why, max_ms = rest
                return Waits(now_ms, ask_ms, name.decode(), why.decode(), rest_ms, rest_why.decode(), max_ms)
            case b"large":
                return Refused(rest[0].decode(), int(float(rest[2])))
            case _:
                return Refused(rest[0].decode())

    async def settle(
        self,
        queue: str,
        call: LimitCall,
        granted: Granted,
        *,
        units: int | None = None,
        refused: str = "",
        rest_ms: int | None = None,
        resting: str = "",
    ) -> Settled:
        """Settle a call that has ended.

        Args:
            queue: queue of the job.
            call: the call.
            granted: the reply to its reservation.
            units: units that it has taken; None leaves what was reserved.
            refused: why the provider has refused the call, such as 429; empty if it has not.
            rest_ms: time for which the limit rests then; None if the provider has not said, so that each rest in a row
                is twice as long as the one before.
            resting: limit that rests then.
        """
        args: list[Any] = [call.owner, call.number, call.job_id, call.tenant, "" if units is None else units]
        args += [refused, "" if rest_ms is None else rest_ms, resting]
        for name in call.names:
            args += (name, granted.epochs.get(name, 0))
        return Settled(*await self._server.run(self._settle, queue, args))

    async def leave(self, queue: str, call: LimitCall) -> None:
        """Take a call that waits out of the lines, since its handler no longer waits for it."""
        await self._server.run(self._leave, queue, [call.job_id, call.place, call.tenant, *call.names])

    async def count_waiting(self, queue: str, names: Sequence[str]) -> list[int]:
        """Return how many calls wait for each limit; 0 for one without a definition."""
        return list(await self._server.run(self._lines, queue, list(names)))

    async def define(self, queue: str, source: str, limits: Mapping[str, Limit]) -> list[str]:
        """Make these the definitions of a source, and delete its other ones.

        Args:
            queue: any queue of the server.
            source: who defines them. A limit of another source is taken over.
            limits: the definitions by name.

        Returns:
            The names of the limits that the source has defined before and that are deleted.
        """
        args: list[str | bytes] = [source]
        for name, limit in limits.items():
            args += (name, encode_limit(limit, source))
        return [name.decode() for name in await self._server.run(self._define, queue, args)]

    async def view(self) -> list[LimitView]:
        """Return all limits, by name, in three round trips. Those of each tenant are shown without their counts."""
        redis = self._server.redis
        found: Mapping[bytes, bytes] = await self._server.call(lambda: redis.execute_command("HGETALL", LIMITS))
        if not found:
            return []
        definitions = {name.decode(): raw for name, raw in sorted(found.items())}

        async def read() -> list[Any]:
            async with redis.pipeline(transaction=False) as pipe:
                for name in definitions:
                    pipe.get(f"{LIMIT}{name}")
                    pipe.hgetall(f"{LIMIT_LINE}{name}")
                    pipe.hgetall(f"{LIMIT_CALLS}{name}")
                pipe.execute_command("TIME")
                return list(await pipe.execute())

        *read_, (seconds, micros) = await self._server.call(read)
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        running = await self._held(
            [[call for call, raw in calls.items() if raw.endswith(b"|1")] for calls in read_[2::3]]
        )
        views = []
        for name, raw, line, count in zip(definitions, read_[::3], read_[1::3], running, strict=True):
            limit, source = decode_limit(definitions[name])
            state = orjson.loads(raw or b"{}")
            first = now_ms // limit.bucket_ms - WINDOW_COUNTS
            counts = [count for count in state.get("buckets") or () if count[0] >= first]
            rests_until_ms = int(state.get("rest_ms", 0))
            rests = rests_until_ms > now_ms
            view = LimitView(
                name=name,
                limit=limit,
                source=source,
                waiting=len(line),
                rests=int(state.get("epoch", 0)),
                rests_until_ms=rests_until_ms if rests else NO_REST_MS,
                rest_why=str(state.get("why", "")) if rests else "",
                requests=round(sum(count[1] for count in counts)),
                units=round(sum(count[2] for count in counts)),
                running=count,
            )
            views.append(view)
        return views

    async def _held(self, reservations: Sequence[Sequence[bytes]]) -> list[int]:
        """Return, for each limit, how many of its calls are made by workers that still hold the job."""
        calls = [reservation.split(b"|", 2) for of_limit in reservations for reservation in of_limit]
        keys = [IN_PROGRESS.encode() + job for _, _, job in calls]
        leases = await self._server.call(lambda: self._server.redis.mget(keys)) if keys else []
        held = [
            bool(lease) and lease.startswith(owner + b"|") for (owner, _, _), lease in zip(calls, leases, strict=True)
        ]
        counts, first = [], 0
        for of_limit in reservations:
            counts.append(sum(held[first : first + len(of_limit)]))
            first += len(of_limit)
        return counts
