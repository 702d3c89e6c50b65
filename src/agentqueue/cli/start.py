"""The command's first step: Ctrl-C ends it in silence, also while the rest is being imported."""

import signal


def main() -> None:
    """Import the command line and run it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where the shell has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from agentqueue.cli.main import main as run  # noqa: PLC0415

    signal.signal(signal.SIGINT, before)
    run()
