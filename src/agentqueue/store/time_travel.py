"""Time travel on a test's server. Redis has no clock that can be moved, so all stored times are moved instead."""

from functools import partial
from typing import Any

from agentqueue.keys import META, RESULT, KeySpace
from agentqueue.store.jobs import Store


async def advance_time(store: Store, by_ms: int) -> None:
    """Make everything on the server older by `by_ms`, so that jobs become due, and retention and rate limits end.

    For servers of tests only: it scans every key, and may miss keys that change meanwhile.
    """
    redis = store.server.redis
    for queue in await store.queues():
        keys = KeySpace(queue)
        for key in (*keys.levels, keys.dead, keys.done):
            await store.server.call(partial(_shift_scores, redis, key, by_ms))
        await store.server.call(partial(_shift_starts, redis, keys.of("limit"), by_ms))
    await store.server.call(partial(_shift_retention, redis, by_ms))
    await store.server.call(partial(_shift_expiries, redis, by_ms))


async def make_due(store: Store, queue: str, job_id: str) -> None:
    """Make a delayed job due now. A job that is due, runs or has ended is not changed."""
    redis = store.server.redis
    seconds, micros = await store.server.call(redis.time)
    due = {job_id: int(seconds) * 1000 + int(micros) // 1000}
    for level in KeySpace(queue).levels:
        await store.server.call(partial(redis.zadd, level, due, xx=True, lt=True))


async def _shift_scores(redis: Any, key: str, by_ms: int) -> None:
    """Move the scores of waiting jobs, which stay at 1 or more. Running jobs (negative scores) keep their lease."""
    found = await redis.zrange(key, 0, -1, withscores=True)
    older = {job_id: max(score - by_ms, 1.0) for job_id, score in found if score >= 0}
    if older:
        await redis.zadd(key, older, xx=True)


async def _shift_starts(redis: Any, key: str, by_ms: int) -> None:
    """Move the start times that the rate limit counts."""
    starts = await redis.lrange(key, 0, -1)
    if starts:
        await redis.delete(key)
        await redis.rpush(key, *(str(int(start) - by_ms) for start in starts))


async def _shift_retention(redis: Any, by_ms: int) -> None:
    async for key in redis.scan_iter(match=f"{RESULT}*", count=1_000):
        left = await redis.pttl(key)
        if left >= 0:
            await redis.pexpire(key, max(left - by_ms, 0))


async def _shift_expiries(redis: Any, by_ms: int) -> None:
    """Move the expiries that users have set with arq's `_expires`."""
    async for key in redis.scan_iter(match=f"{META}*", count=1_000):
        expires = await redis.hget(key, "expires")
        if expires is not None:
            await redis.hset(key, "expires", str(int(expires) - by_ms))
