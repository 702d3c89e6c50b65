"""From settings to a running console. Free of typer, which a console's image need not have."""

import asyncio
from collections.abc import Mapping

from agentqueue.console.server import serve
from agentqueue.console.settings import read_settings
from agentqueue.service.logging import set_up_logs
from agentqueue.store import ServerOptions


def run(
    options: ServerOptions, environ: Mapping[str, str], *, host: str | None = None, port: int | None = None
) -> None:
    """Serve on that Redis until SIGTERM or SIGINT; the rest of the settings are in `environ`.

    The process's log is set up, as JSON lines unless stderr is a terminal.

    Raises:
        UsageError: a setting that can't be. AgentQueueError: the port is taken.
    """
    settings = read_settings(environ, host=host, port=port)
    set_up_logs(settings.log_level, settings.log_format)

    def announce(address: str) -> None:
        # The token stands behind #, which browsers keep to themselves: it gets into no server's log.
        print(
            f"console: {address}/#token={settings.token}" if settings.generated else f"console: {address}/", flush=True
        )

    asyncio.run(serve(options, settings, announce=announce))
