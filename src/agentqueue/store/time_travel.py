"""Time travel on a test's server. Redis has no clock that can be moved, so all stored times are moved instead."""

from functools import partial
from typing import Any

import orjson

from agentqueue.keys import JOURNAL, LIMIT, LIMIT_CALLS, LIMIT_LINE, LIMITS, META, RESULT, SIGNALS, KeySpace
from agentqueue.model.limits import decode_limit
from agentqueue.model.suspension import KINDS, NEVER_MS, PENDING
from agentqueue.store.jobs import Store


async def advance_time(store: Store, by_ms: int) -> None:
    """Make everything on the server older by `by_ms`, so that jobs become due, and retention and rate limits end.

    For servers of tests only: it scans every key, and may miss keys that change meanwhile.
    """
    redis = store.server.redis
    for queue in await store.queues():
        keys = KeySpace(queue)
        for key in (*keys.levels, keys.dead, keys.done, *map(keys.suspended, KINDS)):
            await store.server.call(partial(_shift_scores, redis, key, by_ms))
        await store.server.call(partial(_shift_starts, redis, keys.of("limit"), by_ms))
        await store.server.call(partial(_shift_schedules, redis, keys, by_ms))
    await store.server.call(partial(_shift_retention, redis, by_ms))
    await store.server.call(partial(_shift_notes, redis, by_ms))
    await store.server.call(partial(_shift_waits, redis, by_ms))
    await store.server.call(partial(_shift_signals, redis, by_ms))
    await store.server.call(partial(_shift_limits, redis, by_ms))


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
    older = {job_id: max(score - by_ms, 1.0) for job_id, score in found if 0 <= score < NEVER_MS}
    if older:
        await redis.zadd(key, older, xx=True)


async def _shift_starts(redis: Any, key: str, by_ms: int) -> None:
    """Move the start times that the rate limit counts."""
    starts = await redis.lrange(key, 0, -1)
    if starts:
        await redis.delete(key)
        await redis.rpush(key, *(str(int(start) - by_ms) for start in starts))


async def _shift_schedules(redis: Any, keys: KeySpace, by_ms: int) -> None:
    """Move the clock of the queue's schedules. Their due times are those of the calendar, and do not change."""
    if await redis.exists(keys.schedules):
        await redis.hincrby(keys.ticks, "shift", by_ms)


async def _shift_retention(redis: Any, by_ms: int) -> None:
    async for key in redis.scan_iter(match=f"{RESULT}*", count=1_000):
        left = await redis.pttl(key)
        if left >= 0:
            await redis.pexpire(key, max(left - by_ms, 0))


async def _shift_notes(redis: Any, by_ms: int) -> None:
    """Move the times in the notes of jobs: expiries that users have set with arq's `_expires`, and suspensions."""
    async for key in redis.scan_iter(match=f"{META}*", count=1_000):
        times = ("expires", "stood", "woken", "throttled_since")
        *values, suspended = await redis.hmget(key, *times, "suspended")
        moved: dict[str, Any] = {}
        for name, value in zip(times, values, strict=True):
            if value not in (None, b"0"):
                moved[name] = repr(float(value) - by_ms) if name == "stood" else str(int(value) - by_ms)
        if suspended is not None:
            moved["suspended"] = _older(suspended, by_ms)
        if moved:
            await redis.hset(key, mapping=moved)


async def _shift_waits(redis: Any, by_ms: int) -> None:
    async for key in redis.scan_iter(match=f"{JOURNAL}*", count=1_000):
        found = (await redis.hgetall(key)).items()
        moved = {field: _older(raw, by_ms) for field, raw in found if raw.startswith(PENDING)}
        if moved:
            await redis.hset(key, mapping=moved)


async def _shift_signals(redis: Any, by_ms: int) -> None:
    async for key in redis.scan_iter(match=f"{SIGNALS}*", count=1_000):
        moved: dict[bytes, bytes] = {}
        for field, raw in (await redis.hgetall(key)).items():
            if field.startswith(b"in:"):
                sent, rest = raw.removeprefix(b'"sent":').split(b",", 1)
                moved[field] = b'"sent":%d,%s' % (int(sent) - by_ms, rest)
        if moved:
            await redis.hset(key, mapping=moved)


async def _shift_limits(redis: Any, by_ms: int) -> None:
    """Move the counts, rests and calls of limits, and the tickets of their lines. Counts move by whole counts."""
    for name, definition in (await redis.hgetall(LIMITS)).items():
        limit, _ = decode_limit(definition)
        counts = round(by_ms / limit.bucket_ms)
        of_tenants = redis.scan_iter(match=f"{LIMIT}{name.decode()}:*", count=1_000)
        for suffix in (name.decode(), *[key.decode().removeprefix(LIMIT) async for key in of_tenants]):
            state = orjson.loads(await redis.get(f"{LIMIT}{suffix}") or b"{}")
            if state:
                state["buckets"] = [[bucket[0] - counts, *bucket[1:]] for bucket in state.get("buckets") or ()]
                for field in ("rest_ms", "paced_ms", "probe_ms", "ramp_ms", "swept_ms"):
                    if field in state:
                        state[field] = max(state[field] - by_ms, 0)
                await redis.set(f"{LIMIT}{suffix}", orjson.dumps(state), keepttl=True)
            for call, raw in (await redis.hgetall(f"{LIMIT_CALLS}{suffix}")).items():
                at, bucket, rest = raw.split(b"|", 2)
                moved = b"%d|%d|%s" % (int(at) - by_ms, int(bucket) - counts, rest)
                await redis.hset(f"{LIMIT_CALLS}{suffix}", call, moved)
        line = f"{LIMIT_LINE}{name.decode()}"
        for ticket, raw in (await redis.hgetall(line)).items():
            level, arrived, rest = raw.split(b"|", 2)  # it goes on to be asked for, so that time stays
            moved = b"%s|%d|%s" % (level, int(arrived) - 1000 * by_ms, rest)
            await redis.hset(line, ticket, moved)


def _older(raw: bytes, by_ms: int) -> bytes:
    """Return a JSON object with its times `since` and `until` moved. A time that never comes stays."""
    wire = orjson.loads(raw)
    for name in ("since", "until"):
        if wire.get(name, NEVER_MS) < NEVER_MS:
            wire[name] = int(max(wire[name] - by_ms, 1))
    return orjson.dumps(wire)
