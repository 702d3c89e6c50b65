"""Views that change: updated in place on a terminal, a line per change in a pipe."""

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

POLL_SECONDS = 0.25
"""Time between two readings of a job's status, in seconds. People see a change without delay."""


class LiveView:
    """A view that shows the newest state in place on a terminal, and prints each state elsewhere.

    Args:
        render: Returns a state's view for a terminal.
        print_text: Prints a state elsewhere.
        live: Update the view in place if standard output is a terminal.
    """

    def __init__(
        self, render: Callable[[Any], RenderableType], print_text: Callable[[Any], None], *, live: bool
    ) -> None:
        self._render = render
        self._print_text = print_text
        self._live: Any = None
        if live and on_terminal():
            from rich.live import Live  # noqa: PLC0415

            self._live = Live(auto_refresh=False)

    def __enter__(self) -> LiveView:
        self._context: AbstractContextManager[Any] = self._live if self._live is not None else nullcontext()
        self._context.__enter__()
        return self

    def __exit__(self, *details: Any) -> None:
        self._context.__exit__(*details)

    def show(self, state: Any) -> None:
        """Show the newest state."""
        if self._live is None:
            self._print_text(state)
        else:
            self._live.update(self._render(state), refresh=True)


async def follow(client: Client, job_id: str, *, timeout: float | None = None) -> AsyncIterator[JobStatus]:
    """Yield the job's status now and after each change, until it is final.

    Args:
        client: The client.
        job_id: The job.
        timeout: Stop after this time, in seconds.
    """
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
            await asyncio.sleep(POLL_SECONDS)
