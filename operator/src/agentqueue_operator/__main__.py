"""`python -m agentqueue_operator`: the operator image's entry point, configured by the environment."""

import os
import signal
import sys
import threading
import time
from typing import Final

LAST_RESORT_S: Final = 1.8
"""From the signal to the end, whatever hangs: the Lease runs out by itself."""


def _leave(*_: object) -> None:
    os._exit(0)


# Process 1 of a container loses a SIGTERM that it neither handles nor blocks. So the handler is set before anything
# heavy is imported, and the image's entry point blocks the signal until then (agentqueue.service.signals). Nothing has
# been written yet, and the Lease is not held.
signal.signal(signal.SIGTERM, _leave)


def main() -> int:
    """Returns the exit code."""
    from agentqueue.service.signals import unblock_sigterm  # noqa: PLC0415

    unblock_sigterm()

    import asyncio  # noqa: PLC0415

    from agentqueue.service.error_report import report  # noqa: PLC0415
    from agentqueue.service.logging import set_up_logs  # noqa: PLC0415
    from agentqueue_operator.controller.manager import serve  # noqa: PLC0415
    from agentqueue_operator.controller.settings import read_settings  # noqa: PLC0415

    try:
        settings = read_settings(os.environ)
        set_up_logs(settings.log_level, settings.log_format)
        asyncio.run(serve(settings, on_stop=_end_in_time))
        _exit_now(0)  # taking hundreds of modules apart would take longer than all the rest
    except Exception as exc:  # noqa: BLE001  # the process ends: one line says why, and whose mistake it is
        return report(exc, "agentqueue operator:")
    return 0


def _end_in_time() -> None:
    threading.Thread(target=_last_resort, name="last-resort", daemon=True).start()


def _last_resort() -> None:
    time.sleep(LAST_RESORT_S)
    _exit_now(0)


def _exit_now(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
