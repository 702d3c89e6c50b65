"""Which process and event loop a client belongs to: its connections work in no other."""

import asyncio
import os

from agentqueue.errors import UsageError


class ForkGuard:
    """The process and the event loop of the first call. A client that was only made has neither yet."""

    def __init__(self) -> None:
        self._pid: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def is_in_forked_child(self) -> bool:
        """Whether this is a child of the process that uses the client: what is open is the parent's alone."""
        return self._pid not in (None, os.getpid())

    def is_in_another_loop(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether the client's connections belong to another event loop."""
        return self._loop is not None and self._loop is not loop

    def forget_loop(self) -> None:
        """Forget the event loop: every connection is closed, so that the next call may come from another one."""
        self._loop = None

    def check(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Note the process and the event loop of the first call, and refuse any other's.

        Args:
            loop: the running event loop; None for a client that has one of its own.

        Raises:
            UsageError: this is a child of the process, or another event loop.
        """
        if self.is_in_forked_child():
            raise UsageError(
                f"this client was used before the fork, and its connections are those of process {self._pid}; "
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
