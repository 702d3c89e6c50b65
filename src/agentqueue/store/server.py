"""One connection pool to a Redis or Valkey server, and the one place where its errors become ours."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Self, TypeVar, cast

from redis import asyncio as redis_asyncio
from redis import exceptions as redis_errors

from agentqueue.errors import QueueUnavailable, UnsupportedServer
from agentqueue.store.connection import open_client
from agentqueue.store.errors import is_demoted, translate
from agentqueue.store.options import ServerOptions
from agentqueue.store.scripts import Script, queue_keys

MIN_REDIS: Final = (7, 0)
MIN_VALKEY: Final = (7, 2)
T = TypeVar("T")


class Server:
    """A server, reached lazily. `async with Server(...)` checks it and closes it.

    Every method raises QueueUnavailable (no answer, refused), QueueFull (at `maxmemory`) or UnsupportedServer.
    """

    def __init__(self, options: ServerOptions, *, client: redis_asyncio.Redis | None = None) -> None:
        self.options = options
        self.redis = client if client is not None else open_client(options)
        self.name = options.name

    async def __aenter__(self) -> Self:
        try:
            await self.check()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self.redis.aclose()
        await self.redis.connection_pool.disconnect()

    async def run(self, script: Script, queue: str, args: Sequence[Any]) -> Any:
        """Run a script on a queue's keys; it is loaded when the server does not know it (restart, SCRIPT FLUSH)."""
        keys = queue_keys(queue)
        try:
            return await self._timed(lambda: self.redis.execute_command("EVALSHA", script.sha, len(keys), *keys, *args))
        except redis_errors.NoScriptError:
            return await self.call(lambda: self._load_and_run(script, keys, args))
        except redis_errors.RedisError as exc:
            raise await self._translated(exc) from exc

    async def _load_and_run(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        await self.redis.execute_command("SCRIPT LOAD", script.source)
        return await self.redis.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)

    async def run_each(self, script: Script, calls: Mapping[str, Sequence[Any]]) -> list[Any]:
        """Run a script on each queue with its arguments, in one round trip. It must bear being run twice.

        The answer of a queue whose keys somebody else has filled with another type is None; the others' count.
        """

        async def send() -> list[Any]:
            async with self.redis.pipeline(transaction=False) as pipe:
                for queue, args in calls.items():
                    keys = queue_keys(queue)
                    pipe.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
                return [_reply(answer) for answer in await pipe.execute(raise_on_error=False)]

        try:
            return await self._timed(send) if calls else []
        except redis_errors.NoScriptError:
            await self.call(lambda: self.redis.execute_command("SCRIPT LOAD", script.source))
            return await self.call(send)
        except redis_errors.RedisError as exc:
            raise await self._translated(exc) from exc

    async def call(self, command: Callable[[], Awaitable[T]]) -> T:
        """Await a plain command, with its errors translated. It may take `timeout` in all."""
        try:
            return await self._timed(command)
        except redis_errors.RedisError as exc:
            raise await self._translated(exc) from exc

    async def _timed(self, command: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(self.options.timeout):
                return await command()
        except TimeoutError as exc:
            raise QueueUnavailable(
                f"Redis at {self.name} does not answer (nothing within {self.options.timeout:g} s); "
                "check that it runs and is not overloaded"
            ) from exc

    async def _translated(self, exc: redis_errors.RedisError) -> Exception:
        if is_demoted(exc):
            # The address may lead to the new primary by now: connections to the demoted one are of no use.
            await self.redis.connection_pool.disconnect(inuse_connections=False)
        return translate(exc, self.options)

    async def check(self) -> None:
        """Refuse what would lose jobs: too old, a cluster, a replica, evicting keys, or no Redis at all.

        Raises:
            UnsupportedServer: with what to change.
            QueueUnavailable: no answer, or the password is wrong.
        """
        info = await self.call(self._info)
        if self.options.sentinel is not None and is_replica(info):
            await self.redis.connection_pool.disconnect(inuse_connections=False)
            raise QueueUnavailable(f"Redis at {self.name}: a failover is under way; the Sentinels are asked again")
        problem = find_server_problem(info, allow_eviction=self.options.allow_eviction)
        if problem:
            raise UnsupportedServer(f"Redis at {self.name}: {problem}")

    async def _info(self) -> Mapping[str, Any]:
        return cast("Mapping[str, Any]", await self.redis.info())


def _reply(answer: Any) -> Any:
    """An answer of a pipeline; None for the error that is one queue's alone."""
    if not isinstance(answer, Exception):
        return answer
    if "WRONGTYPE" in str(answer):
        return None
    raise answer


def find_server_problem(info: Mapping[str, Any], *, allow_eviction: bool) -> str | None:
    """Why jobs would not be safe on the server that says this of itself (INFO), or None."""
    valkey = info.get("valkey_version")
    version = _version(str(valkey or info.get("redis_version", "0")))
    least = MIN_VALKEY if valkey else MIN_REDIS
    if version < least:
        found = ".".join(map(str, version))
        return f"version {found} is too old; AgentQueue needs Redis 7.0 or Valkey 7.2 (script flags)"
    if info.get("cluster_enabled"):
        return "runs in cluster mode; jobs' keys have no hash tags: use one server, or a primary with replicas"
    if is_replica(info):
        return "is a read-only replica; give the primary's address"
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction" and info.get("maxmemory") and not allow_eviction:
        return f"maxmemory-policy {policy} may evict jobs; set noeviction (or accept the loss with --allow-eviction)"
    return None


def is_replica(info: Mapping[str, Any]) -> bool:
    """Whether the server that says this of itself takes no writes."""
    return info.get("role") in ("slave", "replica")


def _version(text: str) -> tuple[int, int]:
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0]
    return (int(major) if major.isdigit() else 0, int(minor) if minor.isdigit() else 0)
