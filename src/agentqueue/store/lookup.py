"""Finding: a job's queue from its id alone, and dead letters by when they died."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from agentqueue.errors import InvalidName
from agentqueue.keys import DEAD, JOB, RESULT, KeySpace, check_queue
from agentqueue.store.engine import decode_ids
from agentqueue.store.jobs import BATCH, Store

ARQ_QUEUE: Final = "arq:queue"
"""arq's default queue; plain arq clients note queues nowhere, so it is looked at besides those we know of."""
QUEUES_A_CALL: Final = 100


async def find_queue(store: Store, job_id: str) -> str | None:
    """The queue a job is or was in; None: the server does not know the id.

    Our records name their queue: one round trip. For those of plain arq clients the known queues are asked, 100 a call.
    """
    redis = store.server.redis

    async def read() -> tuple[bytes | None, bytes | None, bytes | None]:
        async with redis.pipeline(transaction=False) as pipe:
            pipe.get(JOB + job_id)
            pipe.hget(DEAD + job_id, "queue")
            pipe.get(RESULT + job_id)
            record, dead, result = await pipe.execute()
            return record, dead, result

    record, dead, result = await store.server.call(read)
    buried = _valid(dead.decode(errors="replace")) if dead and record is None else None
    named = _queue_in(record) or buried or _queue_in(result)
    return named or await _search(store, job_id)


def _queue_in(raw: bytes | None) -> str | None:
    """The queue that a job's or a result's record names: an arq result's is its zset, which may be a level's."""
    try:
        name = orjson.loads(raw)["q"] if raw else None
    except (orjson.JSONDecodeError, KeyError, TypeError):  # a pickle, or garbage
        return None
    if not isinstance(name, str):
        return None
    base, _, level = name.rpartition(":")
    return _valid(base if base and level in ("urgent", "high", "low") else name)


def _valid(queue: str) -> str | None:
    """The name, if a queue can have it: anybody may have written it where names are kept."""
    try:
        return check_queue(queue)
    except InvalidName:
        return None


async def _search(store: Store, job_id: str) -> str | None:
    names = [ARQ_QUEUE, *(name for name in await store.queues() if _valid(name))]
    for start in range(0, len(names), QUEUES_A_CALL):
        chunk = names[start : start + QUEUES_A_CALL]
        found = await _first_with(store, chunk, job_id)
        if found is not None:
            return found
    return None


async def _first_with(store: Store, queues: Sequence[str], job_id: str) -> str | None:
    keys = [(queue, key) for queue in queues for space in (KeySpace(queue),) for key in (*space.levels, space.done)]

    async def read() -> list[float | None]:
        async with store.server.redis.pipeline(transaction=False) as pipe:
            for _, key in keys:
                pipe.zscore(key, job_id)
            replies = await pipe.execute(raise_on_error=False)
        for reply in replies:  # a key of another type than ours holds none of our jobs
            if isinstance(reply, Exception) and not str(reply).startswith("WRONGTYPE"):
                raise reply
        return [None if isinstance(reply, Exception) else reply for reply in replies]

    scores = await store.server.call(read)
    return next((queue for (queue, _), score in zip(keys, scores, strict=True) if score is not None), None)


@dataclass(frozen=True, slots=True)
class DeadRange:
    """The dead letters of a queue up to a moment, of one fingerprint or of all: what a bulk replay goes over."""

    queue: str
    until_ms: int
    fingerprint: str | None = None

    @property
    def key(self) -> str:
        """The zset that indexes them by when they died."""
        keys = KeySpace(self.queue)
        return keys.dead if self.fingerprint is None else keys.fingerprint(self.fingerprint)

    async def page(self, store: Store, *, offset: int, limit: int = BATCH) -> list[str]:
        """Ids, oldest first."""
        redis = store.server.redis
        return decode_ids(
            await store.server.call(
                lambda: redis.zrangebyscore(self.key, "-inf", self.until_ms, start=offset, num=limit)
            )
        )

    async def newest(self, store: Store, *, offset: int, limit: int) -> list[str]:
        """Ids, newest first."""
        redis = store.server.redis
        return decode_ids(
            await store.server.call(
                lambda: redis.zrevrangebyscore(self.key, self.until_ms, "-inf", start=offset, num=limit)
            )
        )
