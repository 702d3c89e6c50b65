"""`python -m agentqueue.console`: what a console pod runs. The Redis URL and the rest come from the environment."""

import os
import sys

from agentqueue.errors import UsageError
from agentqueue.faults import report
from agentqueue.store import server_options


def main() -> int:
    """Serve until SIGTERM. Returns the exit code: 0 stopped, 1 failed, 2 a setting is missing or wrong."""
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
