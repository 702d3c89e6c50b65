"""`agentqueue signal`."""

from __future__ import annotations

from typing import Annotated

import typer

from agentqueue.cli.connection import RedisOption, with_client
from agentqueue.cli.output import AsJson, print_json, print_line, user_and_host
from agentqueue.cli.submit import read_payload


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("signal")(send_signal)


def send_signal(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the signal, as the handler waits for it.")],
    data: Annotated[str | None, typer.Argument(metavar="JSON", help="Its data. @FILE reads it from a file.")] = None,
    sender: Annotated[str | None, typer.Option("--sender", help="Who sends it. Default: you.")] = None,
    signal_id: Annotated[
        str | None, typer.Option("--id", help="ID of the signal, which counts once however often it is sent.")
    ] = None,
    as_json: AsJson = False,
    redis: RedisOption = None,
) -> None:
    """Send a signal to a job, such as an approval that it waits for."""
    value = None if data is None else read_payload(data)
    who = sender or user_and_host()
    counted = with_client(redis, lambda client: client.signal(job_id, name, value, sender=who, id=signal_id))
    if as_json:
        print_json({"id": job_id, "signal": name, "deduplicated": not counted})
    else:
        print_line(f"{job_id} got the signal {name}" if counted else f"{job_id} got the signal {signal_id} before")
