"""Refuse mistyped names of queues and jobs, and suggest the nearest known name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentqueue.client.known_names import nearest, unknown_job, with_next_step
from agentqueue.errors import NotFound

if TYPE_CHECKING:
    from agentqueue.client import Client


async def check_queue_known(client: Client, queue: str, *, next_step: str = "") -> None:
    """Refuse an unknown queue, if other queues are known.

    A queue is known if it has ever had a job, a worker or a scaling decision.

    Raises:
        NotFound: The queue is not known. The message has the nearest known name, and `next_step`.
    """
    known = await client.queues()
    if not known or queue in known:
        return
    stats = await client.stats(queue)
    if not (stats.workers or stats.waiting or stats.delayed or stats.suspended or stats.active or stats.dead):
        raise NotFound(f"no queue {queue!r} is known here; {with_next_step(nearest(queue, known), next_step)}")


async def check_job_known(client: Client, queue: str, name: str, *, next_step: str = "") -> None:
    """Refuse a job name that the registered code of the queue does not have. Without a registration, accept every name.

    Raises:
        NotFound: The name is not known. The message has the nearest known name, and `next_step`.
    """
    known = await client.job_names(queue)
    if known and name not in known:
        raise NotFound(unknown_job(queue, name, known, next_step=next_step))
