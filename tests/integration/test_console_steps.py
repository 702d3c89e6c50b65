"""The REST API's routes for the steps of a job. Beside the library, these tests need the worker."""

from collections.abc import AsyncIterator

import httpx
import pytest

from agentqueue import Agent, Client, Context, OutcomeUnknown
from agentqueue.console.app import create_app
from tests.support.workers import work_off

TOKEN = "a-long-token"


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


@pytest.fixture
async def api(client: Client) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=create_app(client, token=TOKEN))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://console", headers=headers) as caller:
        yield caller


def detail(answer: httpx.Response, status: int) -> str:
    """Check the status of a problem response, and return its detail."""
    assert answer.status_code == status, answer.text
    return str(answer.json()["detail"])


async def test_a_person_resolves_a_step_and_replays_from_one(
    client: Client, api: httpx.AsyncClient, server_url: str
) -> None:
    agent = Agent("flights")

    async def pay() -> str:
        raise OutcomeUnknown

    @agent.job
    async def book(ctx: Context) -> str:
        return await ctx.step("pay", pay, once=True)

    await client.enqueue(book, id="j1")
    await work_off(agent, server_url)
    replay = "/api/queues/flights/dead/replay"
    answer = await api.post(replay, json={"ids": ["j1"], "fromStep": "mail"})
    assert (answer.json()["replayed"], answer.json()["noStep"]) == (0, ["j1"])
    path = "/api/jobs/j1/resolve"
    assert 'name the step: {"step": "pay#1"' in detail(await api.post(path, json={}), 400)
    assert "or run_again" in detail(await api.post(path, json={"step": "pay"}), 400)
    assert "has no step 'mail'" in detail(await api.post(path, json={"step": "mail", "value": 1}), 404)
    assert (await api.post(path, json={"step": "pay", "value": "paid"})).json() == {"id": "j1", "step": "pay"}
    await work_off(agent, server_url)
    job = (await api.get("/api/jobs/j1")).json()
    assert (job["state"], job["result"], job["steps"][0]["outcome"]) == ("completed", "paid", "done")
