"""From zero to the first worker at once: nobody else hears of a first job before the next look."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from agentqueue.errors import AgentQueueError
from agentqueue_operator.queues.ports import Queues

LISTEN_S: Final = 1.0
"""How long one wait blocks; queues that got or lost their workers meanwhile are heeded after it."""
PAUSE_S: Final = 0.1
"""Between waits: time for whoever was woken to start something, and no hot loop while it can't."""


async def listen(
    queues: Callable[[], Queues | None], at_zero: Callable[[], Sequence[str]], wake: Callable[[], None]
) -> None:
    """Call `wake` as soon as one of the queues without a worker gets a job. On a connection of its own; for ever.

    `queues`: None while there is no server.
    """
    while True:
        server, waiting = queues(), at_zero()
        try:
            if server is None or not waiting:
                await asyncio.sleep(LISTEN_S)  # what comes meanwhile leaves its token for the next wait
                continue
            if await server.wait_for_jobs(waiting, LISTEN_S):
                wake()
            await asyncio.sleep(PAUSE_S)
        except AgentQueueError:
            await asyncio.sleep(LISTEN_S)  # whoever looks at the queues says what is wrong
