"""Open clients of redis-py: with fast commands, TLS that checks names, and the primary that Sentinels name."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import hiredis
from redis import asyncio as redis_asyncio
from redis import exceptions as redis_errors
from redis.asyncio.connection import Connection, ConnectionPool, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff

from agentqueue.errors import UsageError
from agentqueue.service import environment as env
from agentqueue.store.options import Sentinels, ServerOptions, Tls
from agentqueue.store.tls import advise_on_tls, find_tls_error, tls_context

SENTINEL_TIMEOUT: Final = 2.0
"""Timeout of a connection to a Sentinel and of its answer, in seconds. All Sentinels are asked at the same time."""


class _FastCommands:
    """Mixin for connections of redis-py. It replaces the two slowest parts of each command."""

    _reader: asyncio.StreamReader | None

    def pack_command(self, *args: Any) -> list[bytes]:
        """Encode a command in C. In Python, the thousands of arguments of a bulk or a claim cost 4 us per job."""
        name = args[0].encode() if isinstance(args[0], str) else args[0]
        words = (*name.split(), *args[1:])
        try:
            return [hiredis.pack_command(words)]
        except UnicodeEncodeError:  # an ID that is not UTF-8 was decoded with surrogateescape
            encoded: Any = (word.encode(errors="surrogateescape") if isinstance(word, str) else word for word in words)
            return [hiredis.pack_command(tuple(encoded))]

    async def can_read_destructive(self) -> bool:
        """Return whether an idle connection has unexpected data. redis-py calls this before each command.

        redis-py before 8 starts a read and cancels it, which takes 30 us. The event loop has fed the reader already.
        """
        reader = self._reader
        if reader is None or reader.at_eof() or reader.exception() is not None:
            raise redis_errors.ConnectionError("the server closed the connection")
        return bool(reader._buffer)  # type: ignore[attr-defined]  # noqa: SLF001  # asyncio has no public way to look


def use_fast_commands(client: redis_asyncio.Redis) -> redis_asyncio.Redis:
    """Make the future connections of a client fast, whatever their class, and return the client."""
    pool = client.connection_pool
    pool.connection_class = type("FastConnection", (_FastCommands, pool.connection_class), {})
    return client


def open_client(options: ServerOptions) -> redis_asyncio.Redis:
    """Return a client that connects when it is first used.

    Raises:
        UsageError: a TLS file can't be read, or the URL has TLS parameters without TLS.
    """
    url = options.address
    kind: type[Connection] = Connection if url.path is None else UnixDomainSocketConnection  # type: ignore[assignment]
    if url.tls and not options.is_secure:
        raise UsageError("the Redis URL has ssl_… parameters without TLS; use rediss://, or remove them")
    tls = _merged(options.tls, url.tls) if options.is_secure and url.path is None else None
    kwargs = url.connection
    if tls is not None:
        tls_context(tls)  # raises now if a file is unreadable, not with each connection
    kwargs |= _connection_settings(options.connect_timeout)
    if options.sentinel is not None:
        return _open_sentinel_client(options.sentinel, kwargs, tls, options.max_connections)
    pool = ConnectionPool(
        connection_class=kind if tls is None else _with_tls(Connection, tls),
        max_connections=options.max_connections,
        **kwargs,
    )
    client = redis_asyncio.Redis(connection_pool=pool)
    client.auto_close_connection_pool = True
    return use_fast_commands(client)


def _connection_settings(connect_timeout: float) -> dict[str, Any]:
    return {
        "protocol": 2,  # RESP3 changes the shape of some replies, and scripts do not need it
        # A script that the client library sends again may run twice, so callers decide on retries.
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": connect_timeout,
        # With a timeout, redis-py sends under asyncio.wait_for, which makes a task per command and may swallow a
        # cancellation (CPython before 3.12, gh-86296). `Server` limits the time of the whole call instead.
        "socket_timeout": None,
    }


# TLS


def _merged(tls: Tls | None, url_options: Mapping[str, Any]) -> Tls:
    """Return the TLS options, with those of the URL where the options have defaults."""
    tls, default = tls or Tls(), Tls()
    unset = {name: value for name, value in url_options.items() if getattr(tls, name) == getattr(default, name)}
    return replace(tls, **unset)


def _with_tls(kind: type[Connection], tls: Tls) -> type[Connection]:
    """Return a subclass of the connection class that uses TLS.

    The TLS connections of redis-py check no names before 6.0, and support no server name other than the address.
    """

    def arguments(self: Connection) -> Mapping[str, Any]:
        plain: Mapping[str, Any] = kind._connection_arguments(self)  # noqa: SLF001  # as redis-py's SSLConnection does
        name = {"server_hostname": tls.server_name} if tls.server_name else {}
        return {**plain, "ssl": tls_context(tls), **name}

    return type("TlsConnection", (kind,), {"_connection_arguments": arguments})


# Sentinel


def _open_sentinel_client(
    sentinels: Sentinels, kwargs: dict[str, Any], tls: Tls | None, max_connections: int
) -> redis_asyncio.Redis:
    kwargs = {name: value for name, value in kwargs.items() if name not in ("host", "port")}
    own = {**_connection_settings(SENTINEL_TIMEOUT), "socket_timeout": SENTINEL_TIMEOUT, "password": sentinels.password}
    discovery = _Discovery(sentinels.nodes, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
    kind: type[Connection] = SentinelManagedConnection
    if tls is not None:
        kind = _with_tls(SentinelManagedConnection, tls)
        for sentinel in discovery.sentinels:
            sentinel.connection_pool.connection_class = _with_tls(Connection, tls)
    client: redis_asyncio.Redis = discovery.master_for(
        sentinels.master, SentinelRedis, connection_class=kind, max_connections=max_connections, **kwargs
    )
    return use_fast_commands(client)


class NoPrimary(MasterNotFoundError):
    """Raised when no Sentinel names the primary."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(reason)
        self.advice = advice


class _Discovery(Sentinel):
    """Sentinel client that asks all Sentinels at the same time, so that one that hangs causes no delay."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Return the address of the primary, from the first Sentinel that knows it.

        Raises:
            NoPrimary: no Sentinel knows it; the message has the reason of each.
        """
        requests = [asyncio.create_task(self._ask(sentinel, service_name)) for sentinel in self.sentinels]
        refusals: list[NoPrimary] = []
        try:
            for answer in asyncio.as_completed(requests):
                try:
                    return await answer
                except NoPrimary as exc:
                    refusals.append(exc)
        finally:
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
        advice = min((exc.advice for exc in refusals), key=_ADVICE.index)
        raise NoPrimary("; ".join(map(str, refusals)), advice)

    async def _ask(self, sentinel: redis_asyncio.Redis, service_name: str) -> tuple[str, int]:
        kwargs = sentinel.connection_pool.connection_kwargs
        address = f"{kwargs['host']}:{kwargs['port']}"
        try:
            known = await sentinel.sentinel_masters()
        except (redis_errors.AuthenticationError, redis_errors.NoPermissionError) as exc:
            raise NoPrimary(f"{address} refuses the password ({exc})", CHECK_PASSWORD) from exc
        except (redis_errors.RedisError, OSError) as exc:
            tls = find_tls_error(exc)
            why = exc if tls is None else f"TLS fails: {advise_on_tls(tls)}"
            raise NoPrimary(f"{address} does not answer ({why})", CHECK_ADDRESSES) from exc
        state = known.get(service_name)
        if state is None:
            names = ", ".join(sorted(known)) or "none"
            raise NoPrimary(f"{address} knows no primary of that name, only {names}", CHECK_NAME)
        if not self.check_master_state(state, service_name):
            raise NoPrimary(f"{address} considers the primary down", WAIT)
        return state["ip"], state["port"]


WAIT: Final = "wait for the failover, or check why it does not start (quorum, replicas)"
CHECK_NAME: Final = f"check the primary's name ({env.REDIS_SENTINEL_MASTER})"
CHECK_PASSWORD: Final = f"check the Sentinels' own password ({env.REDIS_SENTINEL_PASSWORD})"
CHECK_ADDRESSES: Final = f"check the Sentinels' addresses ({env.REDIS_SENTINEL_NODES}) and the network"
_ADVICE: Final = (WAIT, CHECK_NAME, CHECK_PASSWORD, CHECK_ADDRESSES)
"""Advice by priority: of the reasons of several Sentinels, the first in this list is shown."""


class SentinelRedis(redis_asyncio.Redis):
    """Client of a primary that also closes its connections to Sentinels, which redis-py leaves open."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001  # redis-py's signature
        """Close all connections, also those to Sentinels."""
        await super().aclose(close_connection_pool)
        await close_sentinels(self.connection_pool)


async def close_sentinels(pool: ConnectionPool) -> None:
    """Close the connections of a pool to Sentinels, if it has any."""
    if isinstance(pool, SentinelConnectionPool):
        for client in pool.sentinel_manager.sentinels:
            await client.aclose()
