"""Registrations of the versions of a queue's workers: what an earlier version has registered is kept for a rollback."""

from collections.abc import Mapping
from typing import Any, Final

from agentqueue.keys import KeySpace
from agentqueue.model.attempts import number_of
from agentqueue.model.template import KeptTemplate, TemplateState
from agentqueue.store.registrations import CodeSet, Registrations, decode_registration
from agentqueue.store.schedules import Schedules
from agentqueue.store.server import Server

MAX_TEMPLATES: Final = 8
"""Number of versions that are kept for each queue. The ones that registered last stay."""
CODE: Final = "code:"
"""Prefix of the fields with what was registered, by its fingerprint. The other fields are templates."""


class Templates:
    """The versions of the workers of one server's queues. A version is a digest of the workers' pod template."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def read(self, templates: Mapping[str, str]) -> dict[str, TemplateState]:
        """Return what each queue knows of the version of that template, in one round trip.

        Args:
            templates: names of the queues, each with a template.
        """
        redis = self._server.redis

        async def read() -> list[bytes | None]:
            async with redis.pipeline(transaction=False) as pipe:
                for queue, template in templates.items():
                    pipe.execute_command("HGET", KeySpace(queue).templates, template, keys=[])
                    pipe.execute_command("HGET", KeySpace(queue).registration, "fingerprint", keys=[])
                return await pipe.execute()

        replies = await self._server.call(read)
        return {
            queue: TemplateState(_decode(kept), (registered or b"").decode(errors="replace"))
            for queue, kept, registered in zip(templates, replies[::2], replies[1::2], strict=True)
        }

    async def keep(self, queue: str, template: str, fingerprint: str, *, at_ms: int) -> KeptTemplate | None:
        """Keep what a worker of this version has registered, and forget the oldest of more than MAX_TEMPLATES versions.

        Args:
            queue: name of the queue.
            template: the version.
            fingerprint: fingerprint of what its worker registers; empty if it registers nothing.
            at_ms: the time now, in ms since the epoch.

        Returns:
            None if something else is registered for the queue at present.
        """
        redis, keys = self._server.redis, KeySpace(queue)

        async def read() -> tuple[bytes | None, dict[bytes, bytes]]:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.execute_command("HGET", keys.registration, "current", keys=[])
                pipe.execute_command("HGETALL", keys.templates, keys=[])
                text, fields = await pipe.execute()
                return text, fields

        text, fields = await self._server.call(read)
        registration = decode_registration(text) if fingerprint else None
        if fingerprint and (registration is None or registration.fingerprint != fingerprint):
            return None
        kept = KeptTemplate(fingerprint, at_ms, 0 if registration is None else len(registration.jobs))
        new: dict[str, Any] = {template: f"{fingerprint}|{at_ms}|{kept.jobs}"}
        if text is not None and registration is not None:
            new[CODE + fingerprint] = text
        old = _outdated({name.decode(errors="replace"): value for name, value in fields.items()}, new)

        async def write() -> None:
            async with redis.pipeline(transaction=False) as pipe:
                pipe.execute_command("HSET", keys.templates, *(part for field in new.items() for part in field))
                if old:
                    pipe.execute_command("HDEL", keys.templates, *old)
                await pipe.execute()

        await self._server.call(write)
        return kept

    async def restore(self, queue: str, fingerprint: str, *, at_ms: int) -> bool:
        """Register again what an earlier version has registered, as its workers would, and put its crons.

        Args:
            queue: name of the queue.
            fingerprint: fingerprint of its registration.
            at_ms: the time now, in ms since the epoch.

        Returns:
            False if it is no longer known, or if a live worker has what has replaced it.
        """
        redis, key = self._server.redis, KeySpace(queue).templates
        text: bytes | None = await self._server.call(
            lambda: redis.execute_command("HGET", key, CODE + fingerprint, keys=[])
        )
        kept = decode_registration(text)
        if kept is None:
            return False
        code, registrations = CodeSet(jobs=kept.jobs, crons=kept.crons), Registrations(self._server)
        if not await registrations.register(
            queue, code, worker=kept.worker, version=kept.version, time_ms=at_ms, starts=False
        ):
            return False
        await Schedules(self._server).put(queue, source="code", schedules=kept.crons)
        return True


def _decode(value: bytes | None) -> KeptTemplate | None:
    if value is None:
        return None
    fingerprint, _, rest = value.decode(errors="replace").partition("|")
    at_ms, _, jobs = rest.partition("|")
    return KeptTemplate(fingerprint, number_of(at_ms.encode()), number_of(jobs.encode()))


def _outdated(fields: Mapping[str, bytes], new: Mapping[str, Any]) -> list[str]:
    """Return the fields to remove: versions beyond the newest ones, and what only they have registered."""
    kept = {name: _decode(value) for name, value in fields.items() if not name.startswith(CODE) and name not in new}
    newest = sorted((one.at_ms, name) for name, one in kept.items() if one is not None)[-(MAX_TEMPLATES - 1) :]
    names = {name for _, name in newest}
    needed = {CODE + one.fingerprint for name, one in kept.items() if name in names and one is not None}
    return [name for name in fields if name not in names and name not in needed and name not in new]
