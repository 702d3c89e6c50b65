"""Signals and suspended jobs, as clients, the command line and the REST API send and show them."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import orjson
import pytest

from agentqueue import Client
from agentqueue.cli.main import run
from agentqueue.client import Cancellation, SyncClient
from agentqueue.console.app import create_app
from agentqueue.errors import InvalidName, InvalidPayload, JobEnded, JobNotFound, MailboxFull, UsageError
from agentqueue.model.job import State
from agentqueue.store import Server
from tests.support.raw_queue import RawQueue


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


@pytest.fixture
def queue(client: Client, server: Server) -> RawQueue:
    return RawQueue(server, "shop")


async def suspend(client: Client, queue: RawQueue, job_id: str, *, ends_ms: int | None = None) -> None:
    """Enqueue a job, and suspend it until it is approved."""
    await client.enqueue("shop", "buy", id=job_id)
    await queue.suspend(await queue.claim_one(), "approval", ends_ms=ends_ms)


async def test_a_suspended_job_says_what_it_waits_for(client: Client, queue: RawQueue) -> None:
    await suspend(client, queue, "a", ends_ms=3_600_000)
    status = await client.status("a")
    assert (status.state, status.waits_for, status.is_final) == (State.SUSPENDED, "the signal approval", False)
    assert status.suspended_at is not None
    assert status.due_at is not None
    assert round((status.due_at - status.suspended_at).total_seconds()) == 3_600
    assert status.to_json()["waitsFor"] == "the signal approval"
    assert (status.attempts, status.deliveries, status.worker) == (0, 1, None)
    await suspend(client, queue, "b")
    assert (await client.status("b")).due_at is None


async def test_suspended_jobs_are_listed_and_counted_apart_from_delayed_ones(client: Client, queue: RawQueue) -> None:
    for job_id in ("s1", "s2", "s3"):
        await suspend(client, queue, job_id)
    for number in range(5):
        await client.enqueue("shop", "buy", id=f"d{number}", delay=3_600)
    stats = await client.stats("shop")
    assert (stats.delayed, stats.suspended, stats.waiting) == (5, 3, 0)
    assert stats.suspended_by_kind == {"signal": 3, "sleep": 0, "children": 0, "several": 0}
    assert stats.next_due_seconds is not None
    assert sorted(job.id for job in await client.jobs("shop", "suspended")) == ["s1", "s2", "s3"]
    pages, cursor = list[str](), None
    while True:
        page = await client.jobs("shop", "delayed", cursor, limit=2)
        pages += [job.id for job in page]
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(pages) == [f"d{number}" for number in range(5)]
    assert len(await client.jobs("shop")) == 8


async def test_the_signal_of_a_client_wakes_the_job(client: Client, queue: RawQueue) -> None:
    await suspend(client, queue, "a")
    assert await client.signal("a", "approval", {"approved": True}, sender="ana", id="order-7")
    assert not await client.signal("a", "approval", {"approved": True}, sender="ana", id="order-7")
    status = await client.status("a")
    assert (status.state, status.waits_for, status.suspended_at, status.due_at) == (State.WAITING, None, None, None)
    assert (await queue.claim_one()).id == "a"


async def test_a_signal_that_can_not_be_delivered_is_an_error_with_the_reason(client: Client, queue: RawQueue) -> None:
    with pytest.raises(JobNotFound, match="no job nobody is known"):
        await client.signal("nobody", "approval")
    await client.enqueue("shop", "buy", id="a")
    await queue.complete(await queue.claim_one())
    with pytest.raises(JobEnded, match="job a has ended, so the signal 'approval' was not delivered"):
        await client.signal("a", "approval")
    await client.enqueue("shop", "buy", id="b")
    with pytest.raises(InvalidName, match="signal name 'no good'"):
        await client.signal("b", "no good")
    with pytest.raises(InvalidPayload):
        await client.signal("b", "approval", object())
    with pytest.raises(InvalidPayload, match="the data of signal 'approval'"):
        await client.signal("b", "approval", "x" * 1_100_000)
    with pytest.raises(UsageError, match="sender '' must be a text"):
        await client.signal("b", "approval", sender="")
    await client.signal("b", "approval", "x" * 1_000_000)
    with pytest.raises(MailboxFull, match="1,000 signals at most, and 1 MiB of data"):
        await client.signal("b", "approval", "x" * 1_000_000)


async def test_cancelling_a_suspended_job_is_a_request_to_its_next_worker(client: Client, queue: RawQueue) -> None:
    await suspend(client, queue, "a")
    assert await client.cancel("a") is Cancellation.REQUESTED
    assert (await queue.claim_one()).cancel


def test_the_blocking_client_sends_signals(server_url: str) -> None:
    with SyncClient(server_url) as client:
        job = client.enqueue("shop", "buy", id="a")
        assert job.signal("approval", 1, id="x")
        assert not client.signal("a", "approval", 1, id="x", queue="shop")
        with pytest.raises(JobNotFound):
            client.signal("nobody", "approval")


@pytest.fixture
def cli(server_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    monkeypatch.setenv("AGENTQUEUE_REDIS_URL", server_url)

    def call(*arguments: str, code: int = 0) -> str:
        found = run(arguments)
        out, err = capsys.readouterr()
        assert found == code, out + err
        return str(out + err)

    return call


def test_the_command_line_sends_signals_and_shows_suspended_jobs(server_url: str, cli: Callable[..., str]) -> None:
    import asyncio

    async def prepare() -> None:
        async with Client(server_url) as client, Server(client.server.options) as server:
            await suspend(client, RawQueue(server, "shop"), "a")

    asyncio.run(prepare())
    assert "waitsFor:    the signal approval, no timeout" in cli("status", "a")
    assert "a" in cli("jobs", "shop", "--state", "suspended")
    assert "SUSPENDED" in cli("stats", "shop")
    assert cli("signal", "a", "approval", '{"approved": true}', "--sender", "ana", "--id", "x") == (
        "a got the signal approval\n"
    )
    assert cli("signal", "a", "approval", "--id", "x") == "a got the signal x before\n"
    assert '"deduplicated": false' in cli("signal", "a", "more", "--json")
    assert "no job nobody is known" in cli("signal", "nobody", "approval", code=3)
    assert "the payload is not JSON" in cli("signal", "a", "approval", "{", code=2)


@pytest.fixture
async def api(client: Client) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=create_app(client, token="t" * 20))
    headers = {"Authorization": f"Bearer {'t' * 20}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://console", headers=headers) as caller:
        yield caller


async def test_the_rest_api_sends_signals(client: Client, queue: RawQueue, api: httpx.AsyncClient) -> None:
    await suspend(client, queue, "a/b")
    body = {"data": {"approved": True}, "sender": "ana", "id": "x"}
    sent = await api.post("/api/jobs/a/b/signals/approval", json=body)
    assert (sent.status_code, sent.json()) == (202, {"id": "a/b", "signal": "approval", "deduplicated": False})
    again = await api.post("/api/jobs/a/b/signals/approval", json=body)
    assert again.json()["deduplicated"]
    job = await queue.claim_one()
    await queue.complete(job)
    late = await api.post("/api/jobs/a/b/signals/approval", json={})
    assert (late.status_code, late.json()["type"]) == (409, "urn:agentqueue:error:JobEnded")
    assert (await api.post("/api/jobs/nobody/signals/approval", json={})).status_code == 404
    wrong = await api.post("/api/jobs/a/b/signals/approval", json={"sendr": "ana"})
    assert wrong.status_code == 400


async def test_the_rest_api_lists_suspended_jobs(client: Client, queue: RawQueue, api: httpx.AsyncClient) -> None:
    await suspend(client, queue, "a")
    (job,) = (await api.get("/api/queues/shop/jobs?state=suspended")).json()["jobs"]
    assert (job["state"], job["waitsFor"]) == ("suspended", "the signal approval")
    stats = (await api.get("/api/queues/shop")).json()
    assert (stats["suspended"], stats["delayed"]) == (1, 0)
    assert orjson.loads((await api.get("/api/jobs/a")).content)["suspendedAt"]
