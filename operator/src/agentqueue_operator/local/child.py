"""Runs a module in a process that ends with its parent: `python -m agentqueue_operator.local.child PID MODULE`.

When `agentqueue up` is killed, its workers must not run on beside those of the next one. Linux does that by itself
(PR_SET_PDEATHSIG); elsewhere a thread looks who the parent is. Nothing here may be slow to import.
"""

import os
import runpy
import signal
import sys
import threading
from typing import Final

PR_SET_PDEATHSIG: Final = 1
LOOK_EVERY_S: Final = 0.5
"""How soon an orphan ends where the kernel does not help."""


def end_with(parent: int) -> None:
    """From now on this process dies (SIGKILL) when the parent does; at once if it is gone already."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415

        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        _end_if_orphaned(parent)
    else:
        threading.Thread(target=_watch, args=(parent,), name="watch-parent", daemon=True).start()


def _end_if_orphaned(parent: int) -> None:
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(parent: int) -> None:
    forever = threading.Event()
    while True:
        _end_if_orphaned(parent)
        forever.wait(LOOK_EVERY_S)


def main() -> None:
    """Arguments: the parent's pid, the module, the module's own arguments."""
    _, parent, module, *arguments = sys.argv
    end_with(int(parent))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
