"""Where arq's settings lead."""

from typing import Any

from arq.connections import ArqRedis, RedisSettings
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.sentinel import Sentinel

from agentqueue.store import ServerOptions, open_client


def lazy_pool(settings: RedisSettings | None) -> ConnectionPool:
    """What arq's create_pool would connect, not connected."""
    told = settings or RedisSettings()
    account: dict[str, Any] = {"db": told.database, "username": told.username, "password": told.password}
    if told.sentinel:
        sentinels = Sentinel(told.host, ssl=told.ssl, **account)
        pool: ConnectionPool = sentinels.master_for(told.sentinel_master).connection_pool
        return pool
    return ArqRedis(
        **account,
        host=told.host,
        port=told.port,
        unix_socket_path=told.unix_socket_path,
        ssl=told.ssl,
        ssl_keyfile=told.ssl_keyfile,
        ssl_certfile=told.ssl_certfile,
        ssl_cert_reqs=told.ssl_cert_reqs,
        ssl_ca_certs=told.ssl_ca_certs,
        ssl_ca_data=told.ssl_ca_data,
        ssl_check_hostname=told.ssl_check_hostname,
    ).connection_pool


def redis_settings_at(options: ServerOptions) -> RedisSettings:
    """The server as arq's settings, as far as these can say it: what programs read, and `pool_at` goes over.

    Not arq's own from_dsn, which leaves %-escapes in a password as they are.
    """
    url, standard = options.address, RedisSettings()
    settings = RedisSettings(
        host=url.host or standard.host,
        port=url.port or standard.port,
        unix_socket_path=url.path,
        database=url.db or standard.database,
        username=url.username,
        password=url.password,
        ssl=options.is_secure,
    )
    if options.tls is not None:
        settings.ssl_ca_certs = options.tls.ca_file
    if options.sentinel is not None:
        settings.host = list(options.sentinel.nodes)
        settings.sentinel, settings.sentinel_master = True, options.sentinel.master
    return settings


def pool_at(options: ServerOptions, **terms: Any) -> ArqRedis | None:
    """arq's pool where its own settings can't say all: over TLS (they check no names), or behind Sentinels. Else None.

    Not connected yet: the claim loop, which starts at the same time, tells what is wrong.
    """
    if not options.is_secure and options.sentinel is None:
        return None
    return ArqRedis(open_client(options).connection_pool, **terms)
