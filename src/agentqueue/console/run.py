"""Start of the console from its settings. It does not import typer, which the console's image does not have."""

import asyncio
from collections.abc import Mapping

from agentqueue.console.server import serve
from agentqueue.console.settings import read_settings
from agentqueue.service.logging import set_up_logs
from agentqueue.store import ServerOptions


def run(
    options: ServerOptions, environ: Mapping[str, str], *, host: str | None = None, port: int | None = None
) -> None:
    """Serve the console until SIGTERM or SIGINT, and set up the log of the process.

    Args:
        options: The Redis whose queues are shown.
        environ: The variables with all other settings.
        host: The address to listen on, instead of the one in `environ`.
        port: The port to listen on, instead of the one in `environ`.

    Raises:
        UsageError: A setting is not valid.
        AgentQueueError: The port is in use.
    """
    settings = read_settings(environ, host=host, port=port)
    set_up_logs(settings.log_level, settings.log_format)

    def announce(address: str) -> None:
        # Browsers do not send the part after #, so the token is in no server's log.
        print(
            f"console: {address}/#token={settings.token}" if settings.generated else f"console: {address}/", flush=True
        )

    asyncio.run(serve(options, settings, announce=announce))
