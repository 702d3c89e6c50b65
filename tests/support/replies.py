"""Replies of redis-py with the types that they have here.

Its annotations leave open whether a client is asynchronous, and name text where our clients read bytes.
"""

from collections.abc import Awaitable
from typing import TypeVar

from redis.asyncio import Redis

T = TypeVar("T")


async def awaited(reply: Awaitable[T] | T) -> T:
    """Return the reply to an asynchronous client."""
    assert isinstance(reply, Awaitable)
    answer: T = await reply
    return answer


def plain(reply: Awaitable[T] | T) -> T:
    """Return the reply to a synchronous client."""
    assert not isinstance(reply, Awaitable)
    return reply


async def field(redis: Redis, key: str, name: str) -> bytes | None:
    """Return the value of a hash's field."""
    value: bytes | None = await redis.execute_command("HGET", key, name)
    return value


async def fields(redis: Redis, key: str) -> dict[bytes, bytes]:
    """Return a hash."""
    found: dict[bytes, bytes] = await redis.execute_command("HGETALL", key)
    return found
