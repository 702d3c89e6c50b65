"""A Server of our own on the terms of a client that the user made: same address, credentials and TLS."""

from typing import Any

from redis import asyncio as redis_asyncio
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from agentqueue.store import SentinelRedis, Server, ServerOptions, use_fast_commands
from agentqueue_worker.app.lease_renewer import LEASE_THREAD_TIMEOUT_S


def server_like(pool: ConnectionPool, *, for_lease_thread: bool, allow_eviction: bool = False) -> Server:
    """A Server with connections of its own, made as the pool makes them.

    Args:
        pool: the user's; nothing is taken from it but its settings.
        for_lease_thread: for the renewing thread, which must not wait long.
        allow_eviction: as in ServerOptions.
    """
    patient = ServerOptions("redis://", allow_eviction=allow_eviction, label=_name(pool))
    options = patient
    if for_lease_thread:
        options = ServerOptions(
            patient.url,
            connect_timeout=LEASE_THREAD_TIMEOUT_S,
            timeout=LEASE_THREAD_TIMEOUT_S,
            allow_eviction=allow_eviction,
            max_connections=2,
            label=patient.label,
        )
    return Server(options, client=use_fast_commands(_client(pool, options)))


def _client(pool: ConnectionPool, options: ServerOptions) -> redis_asyncio.Redis:
    # The same as for a Server's own client: see there why.
    ours: dict[str, Any] = {
        "protocol": 2,
        "decode_responses": False,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "retry_on_error": [],
        "socket_timeout": None,
        "socket_connect_timeout": options.connect_timeout,
    }
    if isinstance(pool, SentinelConnectionPool):
        client: redis_asyncio.Redis = _sentinel_of(pool).master_for(pool.service_name, SentinelRedis, **ours)
        return client
    own = ConnectionPool(
        connection_class=pool.connection_class,
        max_connections=options.max_connections,
        **(pool.connection_kwargs | ours),
    )
    return redis_asyncio.Redis(connection_pool=own)


def _sentinel_of(pool: SentinelConnectionPool) -> Sentinel:
    """Sentinels of our own: clients belong to the event loop that first used them."""
    known = pool.sentinel_manager
    told = [sentinel.connection_pool.connection_kwargs for sentinel in known.sentinels]
    addresses = [(kwargs["host"], kwargs["port"]) for kwargs in told]
    return Sentinel(addresses, sentinel_kwargs=known.sentinel_kwargs, **known.connection_kwargs)


def _name(pool: ConnectionPool) -> str:
    """The server as messages name it."""
    kwargs = pool.connection_kwargs
    if isinstance(pool, SentinelConnectionPool):
        return f"sentinel {pool.service_name}"
    if kwargs.get("path"):
        return f"unix://{kwargs['path']}"
    return f"redis://{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}/{kwargs.get('db', 0)}"
