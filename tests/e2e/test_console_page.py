"""The console's page in a real browser."""

import os
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from agentqueue import Client
from agentqueue.store import Server
from tests.support.browser import Browser, browsing
from tests.support.raw_queue import RawQueue
from tests.support.servers import RunningServer, run_server

TOKEN = "a-long-token"
ROWS = "document.querySelectorAll('tbody tr').length"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with run_server("valkey") as running:
        yield running


@pytest.fixture(scope="module")
def console(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a console."""
    environ = {"AGENTQUEUE_REDIS_URL": server.url, "AGENTQUEUE_CONSOLE_PORT": "0", "AGENTQUEUE_CONSOLE_TOKEN": TOKEN}
    process = subprocess.Popen(
        [sys.executable, "-m", "agentqueue.console"],
        cwd=tmp_path_factory.mktemp("console"),
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    yield process.stdout.readline().removeprefix("console: ").strip()
    process.terminate()
    process.communicate(timeout=20)


@pytest.fixture(scope="module")
def signed_in(console: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        browser.open(f"{console}#token={TOKEN}")
        browser.until_shown("Queues", "Sign out")
        yield browser


@pytest.fixture
async def page(signed_in: Browser, server: RunningServer) -> Browser:
    """The page on an empty server."""
    with server.client() as plain:
        plain.flushall()
    signed_in.run("location.hash = '#/'")
    signed_in.until_shown("No queue yet")
    signed_in.exceptions.clear()
    return signed_in


def go(page: Browser, place: str) -> None:
    page.run(f"location.hash = {place!r}")


async def test_a_payload_is_shown_as_it_is_stored(page: Browser, server: RunningServer) -> None:
    async with Client(server.url) as client:
        await client.enqueue("q", "search", {"chat_id": 9007199254740993, "price": 1.5}, id="trip")
        go(page, "#/jobs/trip")
        page.until_shown('"chat_id": 9007199254740993,\n  "price": 1.5')
    assert page.exceptions == []


async def test_rows_that_show_more_has_loaded_are_looked_at_again(
    page: Browser, server: RunningServer, console: str
) -> None:
    async with Client(server.url) as client:
        await client.enqueue_many([{"queue": "q", "name": "search", "id": f"j{n}"} for n in range(120)])
        go(page, "#/queues/q")
        page.until(f"{ROWS} === 50")
        for rows in (100, 120):
            page.run("document.querySelector('.more button').click()")
            page.until(f"{ROWS} === {rows}")
        assert page.run("document.querySelector('.more').hidden") is True
        async with Server(client.server.options) as connected:
            await RawQueue(connected, "q").claim(100)
        page.until("document.querySelectorAll('tbody .state.active').length === 100")
        assert page.run(ROWS) == 120
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=console, headers=headers, trust_env=False) as caller:
            assert (await caller.delete("/api/jobs/j119")).status_code == 200
        page.until(f"{ROWS} === 119")
    assert page.exceptions == []


async def test_a_delayed_job_says_when_it_is_due(page: Browser, server: RunningServer) -> None:
    async with Client(server.url) as client:
        await client.enqueue("q", "search", id="later", delay=3_590)
    go(page, "#/queues/q")
    page.until_shown("later", "due in 59 min")
    go(page, "#/jobs/later")
    page.until_shown("Due", "due in 59 min")
    assert page.exceptions == []


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("#/queues/nowhere", "no queue 'nowhere' is known here; did you mean"),
        ("#/queues/nowhere/dead", "no queue 'nowhere' is known here"),
        ("#/jobs/nobody", "no job nobody is known"),
        ("#/queues/%E0%A4%A", "The console has no page at this address"),
        ("#/elsewhere", "The console has no page at this address"),
    ],
)
async def test_a_page_that_there_is_not_says_so(page: Browser, server: RunningServer, place: str, says: str) -> None:
    async with Client(server.url) as client:
        await client.enqueue("nowhere-2", "search")
    go(page, place)
    page.until_shown(says)
    page.until("!document.body.innerText.includes('Loading…')")
    assert page.exceptions == []


async def test_what_cant_be_read_is_a_row_and_the_others_are_shown(page: Browser, server: RunningServer) -> None:
    async with Client(server.url) as client:
        await client.enqueue("good", "search", id="dead")
        async with Server(client.server.options) as connected:
            raw_queue = RawQueue(connected, "good")
            await raw_queue.add_dead_letter(await raw_queue.claim_one())
    with server.client() as plain:
        plain.sadd("aq:queues", "bad name <b>")
        plain.hset("aq:dead:dead", "dead_letter", "garbage")
    page.until_shown("good", "bad name <b>", "It can't be read")
    go(page, "#/queues/good/dead")
    page.until_shown("its dead letter can't be read", "garbage")
    assert page.exceptions == []
