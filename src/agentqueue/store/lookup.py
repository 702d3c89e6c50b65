"""Find the queue of a job by its ID alone, and dead letters by the time of death."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from agentqueue.errors import InvalidName
from agentqueue.keys import DEAD, JOB, RESULT, KeySpace, check_queue
from agentqueue.model.exceptions import clean_text
from agentqueue.store.jobs import BATCH, Store
from agentqueue.store.replies import decode_ids

ARQ_QUEUE: Final = "arq:queue"
"""arq's default queue. Plain arq clients do not register their queues, so it is searched besides the known ones."""
QUEUES_PER_CALL: Final = 100
"""Number of queues that are searched in one round trip; each takes five commands."""


async def find_queue(store: Store, job_id: str) -> str | None:
    """Return the queue that a job is or was in; None if the server does not know the ID.

    A record of AgentQueue names its queue, which takes one round trip. For a record of a plain arq client all known
    queues are searched, 100 per round trip.
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
    dead_queue = _valid_or_none(dead.decode(errors="replace")) if dead and record is None else None
    named = _queue_in(record) or dead_queue or _queue_in(result)
    return named or await _search(store, job_id)


def _queue_in(raw: bytes | None) -> str | None:
    """Return the queue that a job or a result names. A result of arq names the sorted set, which may be a level's."""
    try:
        name = orjson.loads(raw)["q"] if raw else None
    except (orjson.JSONDecodeError, KeyError, TypeError):  # a pickle or other bytes
        return None
    if not isinstance(name, str):
        return None
    base, _, level = name.rpartition(":")
    return _valid_or_none(base if base and level in ("urgent", "high", "low") else name)


def _valid_or_none(queue: str) -> str | None:
    """Return the name if it is a valid queue name. Other programs may have written invalid ones."""
    try:
        return check_queue(queue)
    except InvalidName:
        return None


async def _search(store: Store, job_id: str) -> str | None:
    names = [ARQ_QUEUE, *(name for name in await store.queues() if _valid_or_none(name))]
    for start in range(0, len(names), QUEUES_PER_CALL):
        chunk = names[start : start + QUEUES_PER_CALL]
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
        for reply in replies:  # a key of a wrong type holds no jobs
            if isinstance(reply, Exception) and not str(reply).startswith("WRONGTYPE"):
                raise reply
        return [None if isinstance(reply, Exception) else reply for reply in replies]

    scores = await store.server.call(read)
    return next((queue for (queue, _), score in zip(keys, scores, strict=True) if score is not None), None)


@dataclass(frozen=True, slots=True)
class DeadRange:
    """Dead letters of a queue up to a point in time, of all fingerprints or of one: the range of a bulk replay."""

    queue: str
    until_ms: int
    fingerprint: str | None = None

    @property
    def key(self) -> str:
        """Key of the sorted set that indexes them by the time of death."""
        keys = KeySpace(self.queue)
        return keys.dead if self.fingerprint is None else keys.fingerprint(clean_text(self.fingerprint))

    async def page(self, store: Store, *, offset: int, limit: int = BATCH) -> list[str]:
        """Return a page of IDs, oldest first."""
        redis = store.server.redis
        return decode_ids(
            await store.server.call(
                lambda: redis.zrangebyscore(self.key, "-inf", self.until_ms, start=offset, num=limit)
            )
        )

    async def newest(self, store: Store, *, offset: int, limit: int) -> list[str]:
        """Return a page of IDs, newest first."""
        redis = store.server.redis
        return decode_ids(
            await store.server.call(
                lambda: redis.zrevrangebyscore(self.key, self.until_ms, "-inf", start=offset, num=limit)
            )
        )
