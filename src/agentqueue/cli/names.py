"""Known names: a mistyped queue or job is refused with the nearest one that exists."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from agentqueue.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentqueue.client import Client


async def check_queue_known(client: Client, queue: str, *, way_out: str = "") -> None:
    """Refuse a queue that nobody knows, where others are known. It is known if a job was ever sent to it, or something
    is in it, or a worker serves it, or somebody scales it.

    Raises:
        NotFound: with the nearest known name, and `way_out`.
    """
    known = await client.queues()
    if not known or queue in known:
        return
    stats = await client.stats(queue)
    if not (stats.workers or stats.waiting or stats.delayed or stats.active or stats.dead):
        raise NotFound(f"no queue {queue!r} is known here; {_or(nearest(queue, known), way_out)}")


async def check_job_known(client: Client, queue: str, name: str, *, way_out: str = "") -> None:
    """Refuse a job name that none of the queue's live workers knows; without live workers nobody can tell.

    Raises:
        NotFound: with the nearest known name, and `way_out`.
    """
    workers = (await client.stats(queue)).workers
    known = {job for worker in workers for job in worker.jobs}
    if known and name not in known:
        raise NotFound(f"no worker of queue {queue!r} knows a job {name!r}; {_or(nearest(name, known), way_out)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean …?`, or what there is (at most ten)."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"there is {', '.join(names[:10])}{more}"


def _or(hint: str, way_out: str) -> str:
    if not way_out:
        return hint
    return f"{hint} {way_out}" if hint.endswith("?") else f"{hint}. {way_out}"
