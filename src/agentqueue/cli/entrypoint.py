"""The command's first step: Ctrl-C ends it in silence, also while the rest is being imported."""

import os
import signal
import sys

from agentqueue.service.signals import sigterm_is_blocked, unblock_sigterm


def _leave(number: int, _frame: object) -> None:
    os._exit(128 + number)


def main() -> None:
    """Import the command line and run it; say what to install if its packages are missing."""
    if os.getpid() == 1 or sigterm_is_blocked():  # SIGTERM has no default action on process 1 of a container
        signal.signal(signal.SIGTERM, _leave)
        unblock_sigterm()
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where the shell has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from agentqueue.cli.main import main as run  # noqa: PLC0415
    except ImportError as exc:
        from agentqueue.service.error_report import report  # noqa: PLC0415

        sys.exit(report(exc, "error:"))

    signal.signal(signal.SIGINT, before)
    run()
