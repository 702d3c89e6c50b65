"""Converts between arq's Redis settings and this library's."""

from typing import Any

from arq.connections import ArqRedis, RedisSettings
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.sentinel import Sentinel

from agentqueue.store import ServerOptions, open_client


def lazy_pool(settings: RedisSettings | None) -> ConnectionPool:
    """Return the connection pool that arq's create_pool makes, not connected."""
    given = settings or RedisSettings()
    account: dict[str, Any] = {"db": given.database, "username": given.username, "password": given.password}
    if given.sentinel:
        sentinels = Sentinel(given.host, ssl=given.ssl, **account)
        pool: ConnectionPool = sentinels.master_for(given.sentinel_master).connection_pool
        return pool
    return ArqRedis(
        **account,
        host=given.host,
        port=given.port,
        unix_socket_path=given.unix_socket_path,
        ssl=given.ssl,
        ssl_keyfile=given.ssl_keyfile,
        ssl_certfile=given.ssl_certfile,
        ssl_cert_reqs=given.ssl_cert_reqs,
        ssl_ca_certs=given.ssl_ca_certs,
        ssl_ca_data=given.ssl_ca_data,
        ssl_check_hostname=given.ssl_check_hostname,
    ).connection_pool


def redis_settings_at(options: ServerOptions) -> RedisSettings:
    """Return the server as arq's settings, for programs that read them.

    They can't express everything, see `pool_at`. arq's own from_dsn is not used, since it keeps %-escapes in passwords.
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
    """Return arq's pool for servers that its settings can't express, and None for others.

    These are servers with TLS (arq does not check names) and servers behind Sentinels. The pool is not connected. The
    claim loop, which starts at the same time, reports connection errors.
    """
    if not options.is_secure and options.sentinel is None:
        return None
    return ArqRedis(open_client(options).connection_pool, **terms)
