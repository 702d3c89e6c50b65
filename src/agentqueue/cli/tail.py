"""`agentqueue tail` and `stream-token`: what a job emits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from agentqueue.cli.connection import RedisOption, with_client
from agentqueue.cli.output import AsJson, on_terminal, print_json, printable, warn

if TYPE_CHECKING:
    from agentqueue.client import Client, StreamEvent


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(tail)
    app.command("stream-token")(print_stream_token)


def tail(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    after: Annotated[
        str | None, typer.Option("--after", metavar="EVENT", help="Go on behind this event, whose ID --json prints.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
    redis: RedisOption = None,
) -> None:
    """Print what a job emits, from its beginning, until it ends.

    Texts are printed as they are, other values as a line of JSON. When the job runs again and goes on differently, a
    line says from which event on. Exits with 1 if the job is dead or cancelled, as `submit --wait` does.
    """
    view = _print_as_json if as_json else _Text().show

    async def read(client: Client) -> str:
        async for event in client.stream(job_id, after):
            view(event)
        return str(event.data)

    state = with_client(redis, read)
    if state == "completed":
        return
    if not as_json:
        warn(f"{job_id} is {state}; see `agentqueue status {job_id}`")
    raise typer.Exit(1)


def _print_as_json(event: StreamEvent) -> None:
    print_json({"id": event.id, "type": event.type, "data": event.data}, indent=False)


class _Text:
    """The text that a job emits, as it is printed."""

    def __init__(self) -> None:
        self._line_is_open = False

    def show(self, event: StreamEvent) -> None:
        """Print an event."""
        match event.type:
            case "data" if isinstance(event.data, str):
                text = printable(event.data, lines=True) if on_terminal() else event.data
                print(text, end="", flush=True)
                self._line_is_open = not text.endswith("\n") if text else self._line_is_open
            case "data":
                self._print_line(json.dumps(event.data))
            case "rewind":
                self._print_line(
                    f"--- the job runs again; its first {event.data:,} events stand, and these follow: ---"
                )
            case "gap":
                self._print_line(f"--- {event.data:,} events are missing ---")
            case "end":
                self._end_line()

    def _print_line(self, line: str) -> None:
        self._end_line()
        print(line, flush=True)

    def _end_line(self) -> None:
        if self._line_is_open:
            print(flush=True)
        self._line_is_open = False


def print_stream_token(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    ttl: Annotated[float, typer.Option("--ttl", help="Seconds for which it counts.")] = 3600.0,
    as_json: AsJson = False,
) -> None:
    """Print a token with which a browser may read the stream of one job from the console, and nothing else.

    It is signed with the console's token in AGENTQUEUE_CONSOLE_TOKEN. The browser opens
    `/api/jobs/ID/stream?token=TOKEN` with `EventSource`.
    """
    import os  # noqa: PLC0415

    from agentqueue.client.stream_tokens import mint_for  # noqa: PLC0415

    token = mint_for(os.environ, job_id, ttl)
    if as_json:
        print_json({"id": job_id, "token": token})
    else:
        print(token)
