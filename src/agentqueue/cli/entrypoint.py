"""Entry point of the `agentqueue` command. Ctrl-C ends it silently, also while modules are being imported."""

import os
import signal
import sys

from agentqueue.service.signals import exit_on_sigterm, sigterm_is_blocked


def main() -> None:
    """Import the command line and run it; if its packages are missing, print what to install."""
    if os.getpid() == 1 or sigterm_is_blocked():  # SIGTERM has no default action for process 1 of a container.
        exit_on_sigterm(128 + signal.SIGTERM)
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # The shell can start a program with SIGINT ignored; keep that.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from agentqueue.cli.main import main as run  # noqa: PLC0415
    except ImportError as exc:
        from agentqueue.service.error_report import report  # noqa: PLC0415

        sys.exit(report(exc, "error:"))

    signal.signal(signal.SIGINT, before)
    run()
