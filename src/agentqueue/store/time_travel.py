"""Making time pass on a test's server. Redis has no clock to move, so all that is stored is made older instead."""

from functools import partial
from typing import Any

from agentqueue.keys import META, RESULT, KeySpace
from agentqueue.store.jobs import Store


async def advance_time(store: Store, by_ms: int) -> None:
    """As if `by_ms` had passed: delays and retries come due, retention ends, rate limits let go.

    For servers of tests: it walks every key, and what runs meanwhile may be missed.
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
    """Let a delayed job of a test's server be due now; one that is due, runs or has ended stays as it is."""
    redis = store.server.redis
    seconds, micros = await store.server.call(redis.time)
    due = {job_id: int(seconds) * 1000 + int(micros) // 1000}
    for level in KeySpace(queue).levels:
        await store.server.call(partial(redis.zadd, level, due, xx=True, lt=True))


async def _shift_scores(redis: Any, key: str, by_ms: int) -> None:
    """Scores of waiting jobs stay at 1 or more; running ones (negative) keep their lease."""
    found = await redis.zrange(key, 0, -1, withscores=True)
    older = {job_id: max(score - by_ms, 1.0) for job_id, score in found if score >= 0}
    if older:
        await redis.zadd(key, older, xx=True)


async def _shift_starts(redis: Any, key: str, by_ms: int) -> None:
    """The rate limit's log of starts."""
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
    """What arq's `_expires` asked for."""
    async for key in redis.scan_iter(match=f"{META}*", count=1_000):
        expires = await redis.hget(key, "expires")
        if expires is not None:
            await redis.hset(key, "expires", str(int(expires) - by_ms))
