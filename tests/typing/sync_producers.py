"""Producers without an event loop. Type checkers alone read this folder: nothing here runs."""

from datetime import timedelta
from typing import Any, assert_type

from agentqueue import SyncClient
from agentqueue.client import Cancellation, DeadGroup, JobStatus, Page, QueueStats, Replayed, SyncJob
from agentqueue.model.dead_letter import DeadLetter
from tests.typing.handlers import Request, agent, search
from tests.typing.producers import many, many_later


def clients() -> None:
    """A client is opened by `with`."""
    with SyncClient("redis://localhost", timeout=5) as client:
        assert_type(client, SyncClient)
        assert_type(client.job("trip", queue="search"), SyncJob)
    SyncClient(5)  # type: ignore[arg-type]


async def there_is_nothing_to_await(client: SyncClient) -> None:
    """A forgotten change from Client is found."""
    await client.queues()  # type: ignore[misc]
    async with client:  # type: ignore[attr-defined]
        pass


def jobs(client: SyncClient) -> None:
    """As of Client."""
    assert_type(client.enqueue("search", "search-flights", {"to": "LIS"}, delay=timedelta(hours=1)), SyncJob)
    assert_type(client.enqueue(search, Request("Berlin"), priority="urgent"), SyncJob[list[str]])
    assert_type(client.enqueue(agent.jobs["search"], Request("Berlin")), SyncJob)
    client.enqueue("search")  # type: ignore[call-overload]
    client.enqueue("search", "search-flights", prio=5)  # type: ignore[call-overload]
    client.enqueue(search, Request("Berlin"), delay="1h")  # type: ignore[call-overload]


def one_job(job: SyncJob) -> None:
    """As Job."""
    assert_type((job.id, job.queue, job.deduplicated), tuple[str, str | None, bool])
    assert_type(job.status(), JobStatus)
    assert_type(job.known_status(), JobStatus | None)
    assert_type(job.cancel(), Cancellation)
    assert_type(job.result(timeout=5), Any)
    job.result(timeout="5 s")  # type: ignore[arg-type]


def bulks(client: SyncClient) -> None:
    """A generator runs in the caller's thread, so that it can't be an asynchronous one."""
    assert_type(client.enqueue_many([{"queue": "search", "name": "search-flights"}]), list[SyncJob])
    assert_type(client.enqueue_many(many(), progress=print), list[SyncJob])
    client.enqueue_many(many_later())  # type: ignore[arg-type]


def queues(client: SyncClient) -> None:
    """As of Client."""
    assert_type(client.queues(), list[str])
    assert_type(client.stats("search"), QueueStats)
    assert_type(client.stats(), list[QueueStats])
    assert_type(client.jobs("search", "waiting"), Page[JobStatus])
    assert_type((client.pause("search"), client.resume("search")), tuple[bool, bool])
    assert_type(client.status("trip"), JobStatus)
    assert_type(client.result("trip"), Any)
    assert_type(client.cancel("trip"), Cancellation)


def dead_letters(client: SyncClient) -> None:
    """As of Client."""
    assert_type(client.dead_letters("search"), Page[DeadLetter])
    assert_type(client.dead_letter("trip"), DeadLetter)
    assert_type(client.dead_groups("search"), list[DeadGroup])
    assert_type(client.replay("search", all=True), Replayed)
    assert_type(client.discard("search", all=True), int)
