"""Runs an agent inside another program, for `agentqueue.testing` (entry point `burst` of `agentqueue.workers`)."""

from agentqueue.agent.definition import Agent
from agentqueue.store import ServerOptions
from agentqueue_worker.process import make_worker, program_of
from agentqueue_worker.settings import Settings


async def burst(target: Agent, *, url: str, concurrency: int) -> None:
    """Serve the agent's queue until no job is ready or running. Delayed jobs stay in the queue.

    The settings are the defaults, not those of the environment, so that a test behaves the same on every machine.
    """
    settings = Settings().override(redis=ServerOptions(url), concurrency=concurrency, burst=True)
    await make_worker(program_of(target, settings)).run()
