"""Opens a Server with the address, credentials and TLS of a client that the user made."""

from dataclasses import replace
from typing import Any

from redis import asyncio as redis_asyncio
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff

from agentqueue.store import SentinelRedis, Server, ServerOptions, use_fast_commands
from agentqueue_worker.app.lease_renewer import LEASE_THREAD_TIMEOUT_S


def server_like(pool: ConnectionPool, *, for_lease_thread: bool, allow_eviction: bool = False) -> Server:
    """Return a Server with its own connections, made as the pool makes them.

    Args:
        pool: the user's pool. Only its settings are used.
        for_lease_thread: the Server is for the lease thread, which must not wait.
        allow_eviction: as in ServerOptions.
    """
    options = ServerOptions("redis://", allow_eviction=allow_eviction, label=_label(pool))
    if for_lease_thread:
        timeout = LEASE_THREAD_TIMEOUT_S
        options = replace(options, connect_timeout=timeout, timeout=timeout, max_connections=2)
    return Server(options, client=use_fast_commands(_client(pool, options)))


def _client(pool: ConnectionPool, options: ServerOptions) -> redis_asyncio.Redis:
    # These are the options of a Server's own client, for the reasons given there.
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
        # Clients of Sentinels belong to the event loop that first used them, so the user's can't be shared.
        known = pool.sentinel_manager
        nodes = [sentinel.connection_pool.connection_kwargs for sentinel in known.sentinels]
        addresses = [(node["host"], node["port"]) for node in nodes]
        sentinel = Sentinel(addresses, sentinel_kwargs=known.sentinel_kwargs, **known.connection_kwargs)
        client: redis_asyncio.Redis = sentinel.master_for(pool.service_name, SentinelRedis, **ours)
        return client
    own = ConnectionPool(
        connection_class=pool.connection_class,
        max_connections=options.max_connections,
        **(pool.connection_kwargs | ours),
    )
    return redis_asyncio.Redis(connection_pool=own)


def _label(pool: ConnectionPool) -> str:
    """Return the server's name for messages."""
    kwargs = pool.connection_kwargs
    if isinstance(pool, SentinelConnectionPool):
        return f"sentinel {pool.service_name}"
    if kwargs.get("path"):
        return f"unix://{kwargs['path']}"
    return f"redis://{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}/{kwargs.get('db', 0)}"
