"""Moving a queue's clock: the scripts read the server's own TIME, so tests move the scores instead."""

from typing import TYPE_CHECKING

from agentqueue.keys import IN_PROGRESS, KeySpace
from tests.support.replies import plain

if TYPE_CHECKING:
    import redis


def travel(client: "redis.Redis", queue: str, seconds: float) -> None:
    """Make everything in the queue `seconds` older: waiting since longer, due sooner, leases nearer their end."""
    keys, ms = KeySpace(queue), seconds * 1000
    for key in keys.levels:
        for job_id, score in plain(client.zrange(key, 0, -1, withscores=True)):
            client.zadd(key, {job_id: score - ms if score >= 0 else min(score + ms, -1)})
            if score < 0:
                _age_old_score(client, IN_PROGRESS + job_id.decode(), ms)
    for key in (keys.dead, keys.done):
        for job_id, score in plain(client.zrange(key, 0, -1, withscores=True)):
            client.zadd(key, {job_id: score - ms})


def _age_old_score(client: "redis.Redis", key: str, ms: float) -> None:
    """Where a running job goes back to: `owner|level|old score|claimed ms`, and a mark."""
    value = plain(client.get(key))
    if value is not None and value.count(b"|") >= 3:
        owner, level, score, rest = value.decode().split("|", 3)
        client.set(key, f"{owner}|{level}|{float(score) - ms!r}|{rest}", keepttl=True)


def attend(client: "redis.Redis", queue: str) -> None:
    """As if a worker had looked after the queue a moment ago, and for long: run-out leases may be reaped at once."""
    seconds, micros = plain(client.time())
    client.set(KeySpace(queue).of("reaped"), f"{seconds * 1000 + micros // 1000}|0")


def grow_old(client: "redis.Redis", queue: str, seconds: float) -> None:
    """As `travel`, with what is noted of the queue's workers and housekeeping too: seconds pass in no time."""
    travel(client, queue, seconds)
    keys, ms = KeySpace(queue), round(seconds * 1000)
    for worker, row in plain(client.hgetall(keys.workers)).items():
        seen, bar, said = row.partition(b"|")
        if seen.isdigit():
            client.hset(keys.workers, mapping={worker: b"%d%s%s" % (int(seen) - ms, bar, said)})
    stamp = plain(client.get(keys.of("reaped"))) or b""
    last, _, hold = stamp.partition(b"|")
    if last.isdigit() and hold.isdigit():
        client.set(keys.of("reaped"), f"{max(int(last) - ms, 0)}|{max(int(hold) - ms, 0)}")
