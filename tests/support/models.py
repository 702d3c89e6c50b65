"""The model server of examples/agents, for agents of frameworks that find it by the variables of OpenAI's client."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from assistants.services import Server
from openai import AsyncOpenAI

from agentqueue import Agent, Context
from agentqueue.model.stream import StreamEvent
from tests.support.streams import Page

MODEL = "mock-1"


@contextlib.contextmanager
def model_server() -> Iterator[Server]:
    """Run the server while the block runs, and set OPENAI_BASE_URL and OPENAI_API_KEY, also for child processes."""
    with Server() as server:
        given = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "none"}
        before = {name: os.environ.get(name) for name in given}
        os.environ.update(given)
        try:
            yield server
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def planner(run: Callable[[Context, str], Any]) -> tuple[Agent, Any]:
    """An agent whose handler fails in its first two deliveries, after the run."""
    agent = Agent("planner")

    @agent.job(timeout=60, attempts=3, backoff=0.1)
    async def plan(ctx: Context, prompt: str) -> Any:
        value = await run(ctx, prompt)
        if ctx.delivery < 3:
            raise RuntimeError("again")
        return value

    return agent, plan


@contextlib.asynccontextmanager
async def openai_client() -> AsyncIterator[AsyncOpenAI]:
    """Yield a client of the server that makes each request once."""
    async with AsyncOpenAI(max_retries=0) as client:
        yield client


async def read_text(events: AsyncIterator[StreamEvent]) -> str:
    """Return the text of a job's stream, as a reader has it at its end."""
    page = Page()
    async for event in events:
        page.show(event)
    return "".join(page.pieces)
