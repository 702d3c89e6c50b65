"""redis-py clients made for our use: lean connections, TLS that checks names, and the primary that Sentinels name."""

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
"""Seconds for a Sentinel's connection, and for its answer; then the next one is asked."""


class _Lean:
    """What redis-py does before and in each command, at a fraction of the price."""

    _reader: asyncio.StreamReader | None

    def pack_command(self, *args: Any) -> list[bytes]:
        """In C: a bulk's or a step's thousands of arguments cost 4 us a job otherwise."""
        name = args[0].encode() if isinstance(args[0], str) else args[0]
        words = (*name.split(), *args[1:])
        try:
            return [hiredis.pack_command(words)]
        except UnicodeEncodeError:  # an id of any bytes, decoded with surrogateescape: it goes back as it came
            return [hiredis.pack_command(tuple(_as_it_came(word) for word in words))]

    async def can_read_destructive(self) -> bool:
        """Whether an idle connection is spoilt, which is asked before each command.

        redis-py before 8 starts a read and cancels it at once (30 us); the loop has told the reader already.
        """
        reader = self._reader
        if reader is None or reader.at_eof() or reader.exception() is not None:
            raise redis_errors.ConnectionError("the server closed the connection")
        return bool(reader._buffer)  # type: ignore[attr-defined]  # noqa: SLF001  # asyncio has no other way to ask


def _as_it_came(word: Any) -> Any:
    return word.encode(errors="surrogateescape") if isinstance(word, str) else word


def leaner(client: redis_asyncio.Redis) -> redis_asyncio.Redis:
    """The client itself, its connections made cheaper; for one that a caller made."""
    pool = client.connection_pool
    pool.connection_class = type("Connection", (_Lean, pool.connection_class), {})
    return client


def open_client(options: ServerOptions) -> redis_asyncio.Redis:
    """Return a client that connects when it is first used.

    Raises:
        UsageError: a file of TLS can't be read, or the URL asks for TLS parameters without TLS.
    """
    url = options.address
    kind: type[Connection] = Connection if url.path is None else UnixDomainSocketConnection  # type: ignore[assignment]
    if url.tls and not options.is_secure:
        raise UsageError("the Redis URL's ssl_… parameters are for TLS: write rediss:// for it, or leave them out")
    tls = _merged(options.tls, url.tls) if options.is_secure and url.path is None else None
    kwargs = url.connection
    if tls is not None:
        tls_context(tls)  # tells of an unreadable file now, not with each connection
    kwargs |= _terms(options.connect_timeout)
    if options.sentinel is not None:
        return _behind(options.sentinel, kwargs, tls, options.max_connections)
    pool = ConnectionPool(
        connection_class=kind if tls is None else _secured(Connection, tls),
        max_connections=options.max_connections,
        **kwargs,
    )
    client = redis_asyncio.Redis(connection_pool=pool)
    client.auto_close_connection_pool = True
    return leaner(client)


def _terms(connect_timeout: float) -> dict[str, Any]:
    return {
        "protocol": 2,  # RESP3 changes the shape of some answers; scripts don't need it
        # A script sent twice by the client library could be carried out twice: whoever sends decides.
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": connect_timeout,
        # With one, redis-py sends under asyncio.wait_for, which now and then swallows a cancellation (CPython
        # before 3.12, gh-86296) and makes a task per command. `Server._timed` watches the whole call instead.
        "socket_timeout": None,
    }


# TLS


def _merged(tls: Tls | None, said: Mapping[str, Any]) -> Tls:
    """What the url says of TLS, under what the options say."""
    tls = tls or Tls()
    fresh = Tls()
    return replace(tls, **{name: value for name, value in said.items() if getattr(tls, name) == getattr(fresh, name)})


def _secured(kind: type[Connection], tls: Tls) -> type[Connection]:
    """Connections of that kind over TLS.

    redis-py's own check no names before 6, and know no server name but the address.
    """

    def arguments(self: Connection) -> Mapping[str, Any]:
        plain: Mapping[str, Any] = kind._connection_arguments(self)  # noqa: SLF001  # where redis-py's own puts it too
        name = {"server_hostname": tls.server_name} if tls.server_name else {}
        return {**plain, "ssl": tls_context(tls), **name}

    return type("SecureConnection", (kind,), {"_connection_arguments": arguments})


# Sentinel


def _behind(sentinels: Sentinels, kwargs: dict[str, Any], tls: Tls | None, max_connections: int) -> redis_asyncio.Redis:
    kwargs = {name: value for name, value in kwargs.items() if name not in ("host", "port")}
    own = {**_terms(SENTINEL_TIMEOUT), "socket_timeout": SENTINEL_TIMEOUT, "password": sentinels.password}
    known = _Discovery(sentinels.nodes, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
    kind: type[Connection] = SentinelManagedConnection
    if tls is not None:
        kind = _secured(SentinelManagedConnection, tls)
        for sentinel in known.sentinels:
            sentinel.connection_pool.connection_class = _secured(Connection, tls)
    client: redis_asyncio.Redis = known.master_for(
        sentinels.master, BehindSentinel, connection_class=kind, max_connections=max_connections, **kwargs
    )
    return leaner(client)


class NoPrimary(MasterNotFoundError):
    """No Sentinel names the primary."""

    def __init__(self, said: str, advice: str) -> None:
        super().__init__(said)
        self.advice = advice


class _Discovery(Sentinel):
    """Asks all Sentinels at once, so that one that hangs costs nothing, and tells why there is no primary."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """Its address, from the first Sentinel that has one.

        Raises:
            NoPrimary: with what each said.
        """
        questions = [asyncio.create_task(self._ask(sentinel, service_name)) for sentinel in self.sentinels]
        refusals: list[NoPrimary] = []
        try:
            for answer in asyncio.as_completed(questions):
                try:
                    return await answer
                except NoPrimary as exc:
                    refusals.append(exc)
        finally:
            for question in questions:
                question.cancel()
            await asyncio.gather(*questions, return_exceptions=True)
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
            raise NoPrimary(f"{address} takes the primary for down", WAIT)
        return state["ip"], state["port"]


WAIT: Final = "wait for the failover, or see why it does not come (quorum, replicas)"
CHECK_NAME: Final = f"check the primary's name ({env.REDIS_SENTINEL_MASTER})"
CHECK_PASSWORD: Final = f"check the Sentinels' own password ({env.REDIS_SENTINEL_PASSWORD})"
CHECK_ADDRESSES: Final = f"check the Sentinels' addresses ({env.REDIS_SENTINEL_NODES}) and the network"
_ADVICE: Final = (WAIT, CHECK_NAME, CHECK_PASSWORD, CHECK_ADDRESSES)
"""What helps most comes first."""


class BehindSentinel(redis_asyncio.Redis):
    """Closes what it asked for the primary's address too, which redis-py leaves open."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001  # redis-py's signature
        """See Redis."""
        await super().aclose(close_connection_pool)
        await close_sentinels(self.connection_pool)


async def close_sentinels(pool: ConnectionPool) -> None:
    """Close a pool's connections to Sentinels, if it has any."""
    if isinstance(pool, SentinelConnectionPool):
        for client in pool.sentinel_manager.sentinels:
            await client.aclose()
