"""Following something until it ends or Ctrl-C: a live view on a terminal, a line per change in a pipe."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from agentqueue.cli.output import on_terminal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractContextManager

    from rich.console import RenderableType

    from agentqueue.client import Client, JobStatus

POLL = 0.25
"""Seconds between looks."""


class LiveView:
    """Shows the newest view in place on a terminal; elsewhere prints what `plain` makes of it."""

    def __init__(self, render: Callable[[Any], RenderableType], plain: Callable[[Any], None], *, live: bool) -> None:
        self._render = render
        self._plain = plain
        self._live: Any = _live() if live and on_terminal() else None

    def __enter__(self) -> LiveView:
        self._context: AbstractContextManager[Any] = self._live if self._live is not None else nullcontext()
        self._context.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._context.__exit__(*details)

    def show(self, view: Any) -> None:
        """The newest view."""
        if self._live is None:
            self._plain(view)
        else:
            self._live.update(self._render(view), refresh=True)


def _live() -> Any:
    from rich.live import Live  # noqa: PLC0415

    return Live(auto_refresh=False)


async def follow(client: Client, job_id: str, *, timeout: float | None = None) -> AsyncIterator[JobStatus]:
    """The job's status now and after each change, until it is final (or `timeout` seconds passed)."""
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    last: JobStatus | None = None
    queue = None
    while last is None or not last.is_final:
        status = await client.status(job_id, queue=queue)
        queue = status.queue
        if status != last:
            yield status
        last = status
        if deadline is not None and loop.time() >= deadline:
            return
        if not status.is_final:
            await asyncio.sleep(POLL)
