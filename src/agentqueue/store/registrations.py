"""What the code of a queue's workers has: its jobs and crons. Known before the first job, and without any worker."""

import hashlib
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import orjson

from agentqueue.errors import UsageError
from agentqueue.keys import KeySpace
from agentqueue.model.schedule import Schedule
from agentqueue.store.scripts import load
from agentqueue.store.server import Server

MAX_SCHEMA_BYTES: Final = 65_536
"""Maximum size of the schema of a payload, in bytes. A larger one is left out."""

ANY_TIME: Final = 2
"""Mode of register.lua that registers a set whatever stands."""


@dataclass(frozen=True, slots=True)
class CodeSet:
    """The jobs and crons that an agent's code has."""

    jobs: Mapping[str, Any] = field(default_factory=dict)
    """Name -> JSON schema of the payload; None if it has none, or one that is not known."""
    crons: Sequence[Schedule] = ()

    @classmethod
    def of(cls, schemas: Mapping[str, Any], crons: Sequence[Schedule]) -> "CodeSet":
        """Return the set of jobs with these schemas, without those that exceed MAX_SCHEMA_BYTES."""
        small = {name for name, schema in schemas.items() if len(orjson.dumps(schema)) <= MAX_SCHEMA_BYTES}
        return cls({name: schema if name in small else None for name, schema in schemas.items()}, crons)

    @property
    def fingerprint(self) -> str:
        """Return a text that differs between sets."""
        return hashlib.sha256(orjson.dumps(self._fields(), option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]

    def encode(self, *, worker: str, version: str, time_ms: int) -> bytes:
        """Return the JSON of the registration."""
        about = {"worker": worker, "timeMs": time_ms, "version": version, "fingerprint": self.fingerprint}
        return orjson.dumps(about | self._fields())

    def _fields(self) -> dict[str, Any]:
        return {"jobs": dict(self.jobs), "crons": [cron.describe() for cron in self.crons]}


@dataclass(frozen=True, slots=True)
class Registration:
    """The set that is registered for a queue."""

    worker: str
    """Name of the worker that has registered it last."""
    time_ms: int
    """When that worker started, by its clock."""
    version: str
    """Version of AgentQueue of that worker."""
    fingerprint: str
    jobs: Mapping[str, Any]
    """See `CodeSet.jobs`."""
    crons: Sequence[Schedule]
    text: bytes
    """JSON, as it is stored."""


class Registrations:
    """The registrations of the queues of one server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def register(
        self, queue: str, code: CodeSet, *, worker: str, version: str, time_ms: int, starts: bool
    ) -> bool:
        """Register the set of a worker's code.

        Args:
            queue: the worker's queue.
            code: the set.
            worker: name of the worker.
            version: version of AgentQueue of the worker.
            time_ms: the time now, by the worker's clock.
            starts: the worker has just started. Otherwise nothing is written if the set is registered already.

        Returns:
            False if a live worker has a set that has replaced this one (scripts/register.lua).
        """
        text = code.encode(worker=worker, version=version, time_ms=time_ms)
        return await self.write(queue, code.fingerprint, text, code.jobs, mode=int(starts))

    async def write(self, queue: str, fingerprint: str, text: bytes, jobs: Iterable[str], *, mode: int) -> bool:
        """Write a registration. Return False if it is refused; see scripts/register.lua for the modes."""
        args = [fingerprint, text, mode, orjson.dumps(list(jobs))]
        is_registered, _ = await self._server.run(load("register", allow_oom=True), queue, args)
        return bool(is_registered)

    async def job_names(self, queue: str) -> list[str]:
        """Return the names of the jobs that are registered for a queue, sorted. Empty if none are."""
        redis, key = self._server.redis, KeySpace(queue).registration
        text = await self._server.call(lambda: cast("Awaitable[bytes | None]", redis.hget(key, "names")))
        try:
            return sorted(name for name in orjson.loads(text or b"[]") if type(name) is str)
        except (orjson.JSONDecodeError, TypeError):  # another program has written it
            return []

    async def read(self, queue: str) -> Registration | None:
        """Return the registration of a queue. None if no worker has registered, or it can't be read."""
        redis, key = self._server.redis, KeySpace(queue).registration
        return decode_registration(
            await self._server.call(lambda: cast("Awaitable[bytes | None]", redis.hget(key, "current")))
        )


def decode_registration(text: bytes | None) -> Registration | None:
    """Return a registration from its JSON. None if there is none, or another program has written it."""
    try:
        wire = orjson.loads(text or b"null")
        return Registration(
            worker=str(wire["worker"]),
            time_ms=int(wire["timeMs"]),
            version=str(wire["version"]),
            fingerprint=str(wire["fingerprint"]),
            jobs={str(name): schema for name, schema in wire["jobs"].items()},
            crons=[Schedule.parse(cron) for cron in wire["crons"]],
            text=text or b"",
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError, UsageError):
        return None
