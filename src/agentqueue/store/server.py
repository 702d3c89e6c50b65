"""Connection to a Redis or Valkey server: runs scripts and commands, and translates errors."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Never, Self, TypeVar, cast

from redis import asyncio as redis_asyncio
from redis import exceptions as redis_errors
from redis.asyncio.connection import AbstractConnection

from agentqueue.errors import QueueUnavailable, UnsupportedServer
from agentqueue.store.connection import open_client
from agentqueue.store.errors import is_demoted, translate
from agentqueue.store.options import ServerOptions
from agentqueue.store.scripts import Script, queue_keys

MIN_REDIS: Final = (7, 0)
"""Oldest supported version: the first with script flags (`allow-oom`)."""
MIN_VALKEY: Final = (7, 2)
"""Oldest supported version: the first release of Valkey."""
T = TypeVar("T")


class Server:
    """A server that is connected to when it is first used. `async with Server(...)` checks it and closes it.

    Every method raises QueueUnavailable (no answer, or a refusal), QueueFull (at `maxmemory`) or UnsupportedServer.
    """

    def __init__(self, options: ServerOptions, *, client: redis_asyncio.Redis | None = None) -> None:
        self.options = options
        self.redis = client if client is not None else open_client(options)
        self.name = options.name
        self._dedicated: list[AbstractConnection] = []
        """Idle connections of `run_dedicated`: one, unless calls overlap. The server may have closed them."""

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
        await self._drop_dedicated()
        await self.redis.aclose()
        await self.redis.connection_pool.disconnect()

    def sever(self) -> None:
        """Refuse every further call, as if this process had ended. For tests of crashes; `close` still works."""

        async def refuse(_: object) -> Never:
            raise QueueUnavailable(f"the connection to Redis at {self.name} was severed by a test")

        self._timed = refuse  # type: ignore[method-assign, assignment]

    async def run(self, script: Script, queue: str, args: Sequence[Any]) -> Any:
        """Run a script on the keys of a queue. A script that the server does not know is loaded first."""
        return await self._run(self.redis.execute_command, script, queue, args)

    async def run_dedicated(self, script: Script, queue: str, args: Sequence[Any]) -> Any:
        """Run a script as `run` does, over a connection that stays out of the pool.

        A call costs the caller 20 us less processor time than one through the pool. Calls at the same time take a
        connection each, so callers bound their number.
        """
        return await self._run(self._execute_dedicated, script, queue, args)

    async def _run(
        self, execute: Callable[..., Awaitable[Any]], script: Script, queue: str, args: Sequence[Any]
    ) -> Any:
        keys = queue_keys(queue)
        try:
            return await self._timed(lambda: execute("EVALSHA", script.sha, len(keys), *keys, *args))
        except redis_errors.NoScriptError:
            return await self.call(lambda: self._load_and_run(script, keys, args))
        except redis_errors.RedisError as exc:
            raise await self._translated(exc) from exc

    async def _execute_dedicated(self, *words: Any) -> Any:
        if self._dedicated:
            connection = self._dedicated.pop()
            if await _is_stale(connection):
                await connection.disconnect(nowait=True)
        else:
            connection = cast("AbstractConnection", self.redis.connection_pool.make_connection())
        try:
            if not connection.is_connected:
                await connection.connect()  # newer redis-py connects when it sends, but not to Sentinel's primary
            await connection.send_packed_command(connection.pack_command(*words), check_health=False)
            return await connection.read_response()
        except BaseException as exc:
            # After a timeout, a late reply must not answer the next call. After an error reply the connection is good,
            # unless the server has been demoted: a new connection may reach the new primary.
            if not isinstance(exc, redis_errors.ResponseError) or is_demoted(exc):
                await connection.disconnect(nowait=True)
            raise
        finally:
            self._dedicated.append(connection)

    async def _drop_dedicated(self) -> None:
        """Close the idle connections of `run_dedicated`."""
        while self._dedicated:
            await self._dedicated.pop().disconnect()

    async def _load_and_run(self, script: Script, keys: Sequence[str], args: Sequence[Any]) -> Any:
        await self.redis.execute_command("SCRIPT LOAD", script.source)
        return await self.redis.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)

    async def run_each(self, script: Script, calls: Mapping[str, Sequence[Any]]) -> list[Any]:
        """Run a script on several queues, each with its arguments, in one round trip.

        The script may run twice, so it must be idempotent.

        Returns:
            The replies in the order of the queues; None for a queue with a key of a wrong type.
        """

        async def send() -> list[Any]:
            async with self.redis.pipeline(transaction=False) as pipe:
                for queue, args in calls.items():
                    keys = queue_keys(queue)
                    pipe.execute_command("EVALSHA", script.sha, len(keys), *keys, *args)
                return [_reply_or_none(reply) for reply in await pipe.execute(raise_on_error=False)]

        try:
            return await self._timed(send) if calls else []
        except redis_errors.NoScriptError:
            await self.call(lambda: self.redis.execute_command("SCRIPT LOAD", script.source))
            return await self.call(send)
        except redis_errors.RedisError as exc:
            raise await self._translated(exc) from exc

    async def call(self, command: Callable[[], Awaitable[T]]) -> T:
        """Await a plain command, for at most `timeout` seconds of the options, and translate its errors."""
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
            # A new connection may reach the new primary; idle connections to the demoted server are useless.
            await self.redis.connection_pool.disconnect(inuse_connections=False)
            await self._drop_dedicated()
        return translate(exc, self.options)

    async def check(self) -> None:
        """Check that jobs are safe on the server.

        Raises:
            UnsupportedServer: it is too old, a cluster, a replica or not Redis, or it evicts keys.
            QueueUnavailable: it does not answer, or the password is wrong.
        """
        info = cast("Mapping[str, Any]", await self.call(self.redis.info))
        if self.options.sentinel is not None and is_replica(info):
            await self.redis.connection_pool.disconnect(inuse_connections=False)
            raise QueueUnavailable(f"Redis at {self.name}: a failover is in progress; retry when it is over")
        problem = find_server_problem(info, allow_eviction=self.options.allow_eviction)
        if problem:
            raise UnsupportedServer(f"Redis at {self.name}: {problem}")


async def _is_stale(connection: AbstractConnection) -> bool:
    """Return whether the server has closed an idle connection, or has sent something that nobody waits for."""
    try:
        return bool(await connection.can_read_destructive())
    except (redis_errors.RedisError, OSError):
        return True


def _reply_or_none(reply: Any) -> Any:
    """Return a reply of a pipeline; None for an error that concerns this queue alone."""
    if not isinstance(reply, Exception):
        return reply
    if "WRONGTYPE" in str(reply):
        return None
    raise reply


def find_server_problem(info: Mapping[str, Any], *, allow_eviction: bool) -> str | None:
    """Return why jobs are not safe on a server with this INFO, and what to change; None if they are safe."""
    valkey = info.get("valkey_version")
    version = _version(str(valkey or info.get("redis_version", "0")))
    least = MIN_VALKEY if valkey else MIN_REDIS
    if version < least:
        found = ".".join(map(str, version))
        return f"version {found} is too old; AgentQueue needs Redis 7.0 or Valkey 7.2 (script flags)"
    if info.get("cluster_enabled"):
        return "runs in cluster mode, which AgentQueue does not support; use one server, or a primary with replicas"
    if is_replica(info):
        return "is a read-only replica; give the primary's address"
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy != "noeviction" and info.get("maxmemory") and not allow_eviction:
        return f"maxmemory-policy {policy} may evict jobs; set noeviction (or accept the loss with --allow-eviction)"
    return None


def is_replica(info: Mapping[str, Any]) -> bool:
    """Return whether a server with this INFO is a replica, which takes no writes."""
    return info.get("role") in ("slave", "replica")


def _version(text: str) -> tuple[int, int]:
    major, _, rest = text.partition(".")
    minor = rest.partition(".")[0]
    return (int(major) if major.isdigit() else 0, int(minor) if minor.isdigit() else 0)
