"""Command `agentqueue up` (entry point group `agentqueue.commands`). Heavy imports wait until it runs."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("up", rich_help_panel="Run")(up)


def up(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The AgentQueue resource, as for kubectl apply.")],
    watch: Annotated[bool, typer.Option("--watch", help="Replace the workers when their code changes.")] = False,
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65_535, help="Port of the embedded Valkey. Default: the one it had here."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Create .agentqueue/ in this folder. Default: the current one."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not print the output of the workers.")] = False,
) -> None:
    """Run an AgentQueue on this machine: an embedded Valkey, and worker processes that scale with their queues.

    Jobs survive Ctrl-C, kill -9 and a restart. Ctrl-C drains: running jobs finish, or return to their queue.
    """
    from agentqueue_operator.local.run import run_file  # noqa: PLC0415

    run_file(file, watch=watch, port=port, base=data or Path.cwd(), quiet=quiet)
