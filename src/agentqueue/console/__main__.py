"""Entry point of the console's pod, `python -m agentqueue.console`. All settings come from the environment."""

import os
import sys

from agentqueue.service.signals import exit_on_sigterm


def main() -> int:
    """Serve until SIGTERM, and return the exit code: 0 stopped, 1 failed, 2 a setting is missing or not valid."""
    exit_on_sigterm()  # Nothing is served yet, so there is nothing to finish.

    from agentqueue.errors import UsageError  # noqa: PLC0415
    from agentqueue.service.error_report import report  # noqa: PLC0415
    from agentqueue.store import server_options  # noqa: PLC0415

    try:
        from agentqueue.console.run import run  # noqa: PLC0415  # ImportError: its packages are optional

        options = server_options(os.environ)
        if options is None:
            raise UsageError("no Redis to connect to: set AGENTQUEUE_REDIS_URL or REDIS_URL")
        run(options, os.environ)
    except Exception as exc:  # noqa: BLE001  # the process ends with a one-line error message
        return report(exc, "error:")
    return 0


if __name__ == "__main__":
    sys.exit(main())
