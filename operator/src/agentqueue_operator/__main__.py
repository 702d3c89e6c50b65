"""Entry point of the operator image (`python -m agentqueue_operator`), configured by the environment."""

import os
import sys
import threading
from typing import Final

from agentqueue.service.signals import exit_now, exit_on_sigterm

LAST_RESORT_S: Final = 1.8
"""Seconds from the signal to a forced exit, should a task hang. The Lease then expires by itself."""


def main() -> int:
    """Run the operator until SIGTERM, and return the exit code."""
    exit_on_sigterm()  # Nothing is written yet, and the Lease is not held.

    import asyncio  # noqa: PLC0415

    from agentqueue.service.error_report import report  # noqa: PLC0415
    from agentqueue.service.logging import set_up_logs  # noqa: PLC0415
    from agentqueue_operator.controller.manager import serve  # noqa: PLC0415
    from agentqueue_operator.controller.settings import read_settings  # noqa: PLC0415

    try:
        settings = read_settings(os.environ)
        set_up_logs(settings.log_level, settings.log_format)
        last_resort = threading.Timer(LAST_RESORT_S, exit_now, args=(0,))
        last_resort.daemon = True
        asyncio.run(serve(settings, on_stop=last_resort.start))
        exit_now(0)  # taking hundreds of modules apart would take longer than all the rest
    except Exception as exc:  # noqa: BLE001  # the process ends with a one-line error message
        return report(exc, "agentqueue operator:")


if __name__ == "__main__":
    sys.exit(main())
