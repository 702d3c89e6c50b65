"""Producers with an event loop. Type checkers alone read this folder: nothing here runs."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import arq.jobs

from agentqueue import Client
from agentqueue.client import OMITTED, Cancellation, DeadGroup, Job, JobStatus, Page, QueueStats, Replayed, WorkerStats
from agentqueue.model.attempts import Progress
from agentqueue.model.dead_letter import DeadLetter
from agentqueue.model.job import State
from tests.typing.handlers import Request, agent, search


async def clients() -> None:
    """A client is opened by `async with`."""
    async with Client("redis://localhost", timeout=5, ca_file="ca.pem") as client:
        assert_type(client, Client)
    async with Client() as client:
        assert_type(client.job("trip", queue="search"), Job)
    Client(b"redis://localhost")  # type: ignore[arg-type]
    Client("redis://localhost", 5)  # type: ignore[call-arg]
    with client:  # type: ignore[attr-defined]
        pass


async def by_name(client: Client) -> None:
    """A queue, a job's name, its payload."""
    assert_type(await client.enqueue("search", "search-flights"), Job)
    assert_type(await client.enqueue("search", "search-flights", {"to": "LIS"}, priority="high"), Job)
    await client.enqueue(queue="search", name="search-flights", data=None)
    await client.enqueue(
        "search",
        "search-flights",
        priority=5,
        delay=timedelta(hours=1),
        at=datetime(2026, 1, 1, tzinfo=UTC),
        id="trip",
        tags=("a", "b"),
        timeout=60,
        attempts=2,
        backoff=1.5,
        tenant="acme",
        trace="00-1-2-01",
        force=True,
    )
    await client.enqueue("search")  # type: ignore[call-overload]
    await client.enqueue("search", 5)  # type: ignore[call-overload]
    await client.enqueue("search", "search-flights", prio=5)  # type: ignore[call-overload]
    await client.enqueue("search", "search-flights", delay="1h")  # type: ignore[call-overload]
    await client.enqueue("search", "search-flights", tags=5)  # type: ignore[call-overload]


async def by_function(client: Client) -> None:
    """A decorated function or its definition, and the payload."""
    assert_type(await client.enqueue(search, Request("Berlin"), id="trip"), Job[list[str]])
    assert_type(await client.enqueue(agent.jobs["search"], Request("Berlin")), Job)
    await client.enqueue(search, Request("Berlin"), prio=5)  # type: ignore[call-overload]
    await client.enqueue(None, Request("Berlin"))  # type: ignore[call-overload]


async def one_job(job: Job) -> None:
    """The methods of a handle, and the types that they return."""
    assert_type((job.id, job.queue, job.deduplicated), tuple[str, str | None, bool])
    assert_type(await job.status(), JobStatus)
    assert_type(await job.known_status(), JobStatus | None)
    assert_type(await job.cancel(), Cancellation)
    assert_type(await job.result(), Any)
    assert_type(await job.result(timeout=timedelta(seconds=5)), Any)
    await job.result(timeout="5 s")  # type: ignore[arg-type]
    job.result().upper()  # type: ignore[attr-defined]


def statuses(status: JobStatus) -> None:
    """What is known of a job."""
    assert_type((status.id, status.queue, status.name), tuple[str, str, str])
    assert_type(status.state, State)
    assert_type(status.is_final, bool)
    assert_type(status.progress, Progress | None)
    assert_type(status.enqueued_at, datetime | None)
    assert_type((status.attempts, status.deliveries), tuple[int, int])
    assert status.data is not OMITTED
    status.progress.percent  # type: ignore[union-attr]  # noqa: B018


def many() -> Iterator[dict[str, Any]]:
    """Jobs of a bulk."""
    yield {"queue": "search", "name": "search-flights", "data": 1}


async def many_later() -> AsyncIterator[dict[str, Any]]:
    """The same, of an asynchronous source."""
    yield {"function": search, "payload": Request("Berlin")}


async def bulks(client: Client) -> None:
    """Mappings, from a list or a generator."""
    assert_type(await client.enqueue_many([{"queue": "search", "name": "search-flights"}]), list[Job])
    assert_type(await client.enqueue_many(many(), progress=print), list[Job])
    assert_type(await client.enqueue_many(many_later()), list[Job])
    await client.enqueue_many([("search", "search-flights")])  # type: ignore[list-item]
    await client.enqueue_many(5)  # type: ignore[arg-type]


async def queues(client: Client) -> None:
    """What the console and the command line read."""
    assert_type(await client.queues(), list[str])
    assert_type(await client.stats("search"), QueueStats)
    assert_type(await client.stats(), list[QueueStats])
    assert_type(list((await client.stats("search")).workers), list[WorkerStats])
    page = await client.jobs("search", State.WAITING, limit=10, fields=["data"])
    assert_type(page, Page[JobStatus])
    assert_type(page[0], JobStatus)
    assert_type(page.cursor, str | None)
    assert_type(await client.pause("search", "the airline is down"), bool)
    assert_type(await client.resume("search"), bool)
    await client.stats(["search"])  # type: ignore[call-overload]


async def by_id(client: Client) -> None:
    """Jobs whose id is all that is known."""
    assert_type(await client.status("trip"), JobStatus)
    assert_type(await client.result("trip", 5, queue="search"), Any)
    assert_type(await client.cancel("trip"), Cancellation)
    assert_type(await client.arq_job("trip"), arq.jobs.Job)


async def dead_letters(client: Client) -> None:
    """What failed for good."""
    assert_type(await client.dead_letters("search", fingerprint="ab12"), Page[DeadLetter])
    assert_type(await client.dead_letter("trip"), DeadLetter)
    assert_type(await client.dead_groups("search"), list[DeadGroup])
    assert_type(await client.replay("search", all=True), Replayed)
    assert_type(await client.replay("search", ["trip"]), Replayed)
    assert_type(await client.discard("search", "trip"), int)
    await client.replay("search", True)  # type: ignore[arg-type]
