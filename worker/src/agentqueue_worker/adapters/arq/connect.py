"""Where arq's settings lead."""

from typing import Any
from urllib.parse import unquote, urlsplit

from arq.connections import ArqRedis, RedisSettings
from redis.asyncio.connection import ConnectionPool
from redis.asyncio.sentinel import Sentinel


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


def redis_settings_at(url: str, ca_file: str | None = None) -> RedisSettings:
    """The URL as arq's settings. arq's own from_dsn leaves %-escapes in a password as they are."""
    settings, parts = RedisSettings.from_dsn(url), urlsplit(url)
    settings.username = None if parts.username is None else unquote(parts.username)
    settings.password = None if parts.password is None else unquote(parts.password)
    settings.ssl_ca_certs = ca_file
    return settings
