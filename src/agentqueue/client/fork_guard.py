"""Guard against the use of a client in another process or event loop, where its connections do not work."""

import asyncio
import os

from agentqueue.errors import UsageError


class ForkGuard:
    """The process and the event loop of a client's first call. A new client has neither."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def is_in_forked_child(self) -> bool:
        """Return whether this process is a forked child of the one that uses the client and owns its connections."""
        return self._pid not in (None, os.getpid())

    def is_in_another_loop(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether the client's connections belong to another event loop."""
        return self._loop is not None and self._loop is not loop

    def forget_loop(self) -> None:
        """Forget the event loop, after every connection was closed. The next call may use another event loop."""
        self._loop = None

    def check(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Remember the process and the event loop of the first call, and refuse calls from any other.

        Args:
            loop: The running event loop. None for a client that has its own event loop.

        Raises:
            UsageError: The call comes from a forked child or from another event loop.
        """
        if self.is_in_forked_child():
            raise UsageError(
                f"this client was used before the fork, and its connections belong to process {self._pid}; "
                "open a new client in the child process"
            )
        self._pid = os.getpid()
        if loop is not None:
            if self.is_in_another_loop(loop):
                raise UsageError(
                    "this client was used in another event loop, and its connections belong to that one; make all "
                    "calls in one asyncio.run(), or open a client in each: async with Client(...)"
                )
            self._loop = loop
