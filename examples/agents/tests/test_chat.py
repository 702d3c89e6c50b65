"""The agent `chat` and its terminal, on a real server."""

import asyncio
from collections.abc import Sequence

import pytest
from assistants import chat
from assistants.services import Server

from agentqueue import Client, JobStatus
from agentqueue.testing import Sandbox


async def test_the_answer_comes_word_by_word(services: Server) -> None:
    services.records.word_delay = 0.1
    words: list[str] = []
    async with Sandbox(chat.agent) as box:
        assert await chat.ask(box.client, "Write: tea", words.append) == "completed"
    assert "".join(words) == "A report on tea "
    assert len(words) > 1
    assert services.records.model_calls == 1


async def test_a_reader_that_stops_cancels_the_job(services: Server) -> None:
    services.records.word_delay = 5
    first = asyncio.Event()
    async with Sandbox(chat.agent) as box, Client(box.url) as client:
        asking = asyncio.create_task(chat.ask(client, "Write: tea", lambda _: first.set()))
        (job,) = await until_listed(client)
        running = asyncio.create_task(box.run_until_idle())
        await first.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await running
        status = await client.status(job.id)
    assert (status.state, status.deliveries) == ("cancelled", 1)
    assert services.records.model_calls == 1


async def until_listed(client: Client) -> Sequence[JobStatus]:
    while not (jobs := await client.jobs("chat", "waiting")):
        pass  # each turn is a round trip
    return jobs


async def test_a_crash_in_the_middle_doubles_no_word(services: Server) -> None:
    services.records.word_delay = 0.2
    words: list[str] = []
    async with Sandbox(chat.agent) as box:
        first = asyncio.Event()

        def write(word: str) -> None:
            words.append(word)
            first.set()

        asking = asyncio.create_task(chat.ask(box.client, "Write: tea and coffee", write))
        await first.wait()
        await box.crash()
        assert await asking == "completed"
    assert "".join(words) == "A report on tea and coffee "
    assert services.records.model_calls == 2
