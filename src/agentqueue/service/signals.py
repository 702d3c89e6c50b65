"""SIGTERM in the first moments of a process that is process 1 of a container.

The kernel drops a signal for process 1 of a PID namespace while the process has no handler for it (pid_namespaces(7)),
and Python needs 50 to 300 ms until a program can set one. A blocked signal stays pending (signal(7)), also for
process 1: the kernel's `sig_ignored()` asks first whether it is blocked. So the images start Python with
`env --block-signal=TERM`, and a program unblocks the signal once its handler is set.
"""

import os
import signal
from typing import Final


def sigterm_is_blocked() -> bool:
    """Return whether SIGTERM is blocked in the calling thread, as it is after a start by `env --block-signal=TERM`."""
    return hasattr(signal, "pthread_sigmask") and signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def unblock_sigterm() -> None:
    """Unblock SIGTERM in the calling thread; one that came before is handled now.

    To be called when the handler is set, and before a process is started: children inherit what is blocked.
    """
    if sigterm_is_blocked():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


SIGTERM_CAN_BE_LOST: Final = os.getpid() == 1 and not sigterm_is_blocked()
"""Whether a SIGTERM before the import of this module was dropped, if there was one; nothing can find that out later."""
