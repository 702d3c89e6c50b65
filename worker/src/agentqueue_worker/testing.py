"""Runs an agent inside another program, for `agentqueue.testing` (entry point `burst` of `agentqueue.workers`)."""

from collections.abc import Callable

from agentqueue.agent.definition import Agent
from agentqueue.store import Engine, Server, ServerOptions
from agentqueue_worker.app.worker import Worker
from agentqueue_worker.process import make_worker, program_of
from agentqueue_worker.settings import Settings


async def burst(target: Agent, *, url: str, concurrency: int, started: Callable[[Worker], None]) -> None:
    """Serve the agent's queue until no job is ready or running. Delayed jobs stay in the queue.

    The settings are the defaults, not those of the environment, so that a test behaves the same on every machine.

    Args:
        target: the agent.
        url: URL of the server.
        concurrency: number of jobs that run at a time.
        started: called with the worker, which it may drain or crash.
    """
    settings = Settings().override(redis=ServerOptions(url), concurrency=concurrency, burst=True)
    worker = make_worker(program_of(target, settings))
    started(worker)
    await worker.run()
    if worker.crashed:
        async with Server(ServerOptions(url)) as server:  # the next worker takes over now, not at the end of the lease
            engine = Engine(server, worker.options.queue)
            await engine.release_owner_leases(owner=worker.options.identity.owner, reason="the Sandbox crashed it")
