"""Runs a module in a process that ends with its parent: `python -m agentqueue_operator.local.child PID MODULE`.

If `agentqueue up` is killed, its workers must not continue beside those of the next `up`. On Linux the kernel ends them
(PR_SET_PDEATHSIG); elsewhere a thread polls the parent's process ID. Imports of this module must stay fast.
"""

import os
import runpy
import signal
import sys
import threading
from typing import Final

PR_SET_PDEATHSIG: Final = 1
"""Option of prctl(2): the signal that this process gets when its parent ends."""
POLL_S: Final = 0.5
"""Interval in seconds of the poll for the parent, and so the longest life of an orphan, on systems other than Linux."""


def end_with(parent: int) -> None:
    """Kill this process (SIGKILL) when the process with the ID `parent` ends, or at once if it has ended already."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _end_if_orphaned(parent)
    else:
        threading.Thread(target=_poll_parent, args=(parent,), name="watch-parent", daemon=True).start()


def _end_if_orphaned(parent: int) -> None:
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _poll_parent(parent: int) -> None:
    forever = threading.Event()
    while True:
        _end_if_orphaned(parent)
        forever.wait(POLL_S)


def main() -> None:
    """Run the module. The arguments are the parent's process ID, the module, and the arguments of the module."""
    _, parent, module, *arguments = sys.argv
    end_with(int(parent))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
