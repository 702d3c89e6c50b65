"""`python -m agentqueue_worker [module:attribute]`: the worker image's entry point, configured by the environment."""

import os
import sys

from agentqueue.service.signals import exit_on_sigterm


def main() -> int:
    """Run the worker until SIGTERM, and return the exit code."""
    exit_on_sigterm()  # No job is claimed yet, so there is nothing to drain.

    from agentqueue.service.error_report import report  # noqa: PLC0415
    from agentqueue.service.logging import set_up_logs  # noqa: PLC0415
    from agentqueue.store import server_options  # noqa: PLC0415
    from agentqueue_worker.process import load_program, run_program  # noqa: PLC0415
    from agentqueue_worker.settings import read_settings  # noqa: PLC0415

    debug = None
    try:
        settings = read_settings(os.environ)
        settings = settings.override(handler=next(iter(sys.argv[1:]), None))
        set_up_logs(settings.log_level, settings.log_format)
        debug = settings.log_level == "debug" or None
        run_program(load_program(settings, lambda: server_options(os.environ)))
    except Exception as exc:  # noqa: BLE001  # the process ends with a one-line error message
        return report(exc, "agentqueue worker:", debug=debug)
    return 0


if __name__ == "__main__":
    sys.exit(main())
