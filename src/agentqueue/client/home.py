"""Which process a client belongs to: a fork copies the client, but neither its event loop nor its connections."""

import os

from agentqueue.errors import UsageError


class Home:
    """The process of the first call. A client that was only made has none yet, and may be used after a fork."""

    def __init__(self) -> None:
        self._pid: int | None = None

    def is_elsewhere(self) -> bool:
        """Whether this is a child of the process that uses the client: what is open is the parent's alone."""
        return self._pid not in (None, os.getpid())

    def check(self) -> None:
        """Note the process of the first call, and refuse any other's.

        Raises:
            UsageError: this is a child of it.
        """
        if self.is_elsewhere():
            raise UsageError(
                f"this client was used before the fork, and its connections are those of process {self._pid}; "
                "open a new client in the child process"
            )
        self._pid = os.getpid()
