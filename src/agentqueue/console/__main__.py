"""`python -m agentqueue.console`: what a console pod runs. The Redis URL and the rest come from the environment."""

import os
import signal
import sys

from agentqueue.service.signals import unblock_sigterm


def _leave(*_: object) -> None:
    os._exit(0)


def main() -> int:
    """Serve until SIGTERM. Returns the exit code: 0 stopped, 1 failed, 2 a setting is missing or wrong."""
    # Process 1 of a container loses a SIGTERM that it neither handles nor blocks. Nothing is served yet.
    signal.signal(signal.SIGTERM, _leave)
    unblock_sigterm()

    from agentqueue.errors import UsageError  # noqa: PLC0415
    from agentqueue.service.error_report import report  # noqa: PLC0415
    from agentqueue.store import server_options  # noqa: PLC0415

    try:
        from agentqueue.console.run import run  # noqa: PLC0415  # its packages may be missing

        options = server_options(os.environ)
        if options is None:
            raise UsageError("no Redis to connect to: set AGENTQUEUE_REDIS_URL or REDIS_URL")
        run(options, os.environ)
    except Exception as exc:  # noqa: BLE001  # the process ends: one line says why, and whose mistake it is
        return report(exc, "error:")
    return 0


if __name__ == "__main__":
    sys.exit(main())
