"""Listener for the first job of a queue without workers, so that its first worker starts without waiting for a poll."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from agentqueue.errors import AgentQueueError
from agentqueue_operator.queues.ports import Queues

LISTEN_S: Final = 1.0
"""Longest time in seconds that one wait blocks. The set of queues without workers is read again after each wait."""
PAUSE_S: Final = 0.1
"""Pause in seconds between two waits. It leaves time to start a worker, and prevents a busy loop if none can start."""


async def listen(
    queues: Callable[[], Queues | None], at_zero: Callable[[], Sequence[str]], wake: Callable[[], None]
) -> None:
    """Call `wake` when a queue without workers gets a job. Runs until cancelled, on a connection of its own.

    Args:
        queues: returns the queues, or None while there is no server.
        at_zero: returns the names of the queues without workers.
        wake: called after a job has arrived.
    """
    while True:
        server, waiting = queues(), at_zero()
        try:
            if server is None or not waiting:
                await asyncio.sleep(LISTEN_S)  # A job that arrives meanwhile leaves a token for the next wait.
                continue
            if await server.wait_for_jobs(waiting, LISTEN_S):
                wake()
            await asyncio.sleep(PAUSE_S)
        except AgentQueueError:
            await asyncio.sleep(LISTEN_S)  # The loop that reads the queues reports the problem.
