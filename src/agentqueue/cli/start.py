"""The command's first step: Ctrl-C ends it in silence, also while the rest is being imported."""

import signal
import sys


def main() -> None:
    """Import the command line and run it; say what to install if its packages are missing."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where the shell has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from agentqueue.cli.main import main as run  # noqa: PLC0415
    except ImportError as exc:
        from agentqueue.faults import report  # noqa: PLC0415

        sys.exit(report(exc, "error:"))

    signal.signal(signal.SIGINT, before)
    run()
