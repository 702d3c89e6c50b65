"""SIGTERM during the start of a program, and the immediate end of a process.

The kernel drops a signal to process 1 of a PID namespace while the process has no handler for it (pid_namespaces(7)).
Python needs 50 to 300 ms before a program can set one. A blocked signal stays pending, also for process 1, since the
kernel's `sig_ignored()` first asks if the signal is blocked. The images therefore start Python with
`env --block-signal=TERM`, and a program unblocks the signal once its handler is set.
"""

import os
import signal
import sys
from typing import Final, NoReturn


def sigterm_is_blocked() -> bool:
    """Return whether SIGTERM is blocked in this thread, as it is after a start by `env --block-signal=TERM`."""
    return hasattr(signal, "pthread_sigmask") and signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def unblock_sigterm() -> None:
    """Unblock SIGTERM in this thread. A pending SIGTERM is handled now.

    Call it when the handler is set, and before a child process is started: children inherit blocked signals.
    """
    if sigterm_is_blocked():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def exit_on_sigterm(code: int = 0) -> None:
    """Make SIGTERM end the process at once with this exit code, and unblock the signal.

    A program calls it first, before its slow imports. It replaces the handler when it has work to finish.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(code))
    unblock_sigterm()


def exit_now(code: int) -> NoReturn:
    """Write buffered output and end the process, without waiting for its threads and without exit handlers."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


SIGTERM_CAN_BE_LOST: Final = os.getpid() == 1 and not sigterm_is_blocked()
"""True if a SIGTERM before the import of this module was dropped. The program cannot find out later, so it warns."""
