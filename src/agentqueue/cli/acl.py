"""`agentqueue acl`: the permissions of AgentQueue's Redis user."""

from __future__ import annotations

from typing import Annotated

import typer

from agentqueue.cli.output import AsJson, print_json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("acl")(print_acl)


def print_acl(
    queues: Annotated[
        list[str] | None, typer.Argument(metavar="QUEUE...", help="Allow the keys of these queues only.")
    ] = None,
    user: Annotated[str, typer.Option("--user", metavar="NAME", help="The Redis user.")] = "agentqueue",
    arq: Annotated[bool, typer.Option("--arq", help="Add the commands of programs that are written for arq.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the ACL rule for the Redis user of workers, clients, commands, console and operator.

    Replace PASSWORD in the rule. Then pass the rule to redis-cli, or add it to the server's ACL file.
    """
    from agentqueue.store import acl  # noqa: PLC0415  # redis-py takes 0.2 s to import

    line = acl.rule(user, queues or (), arq=arq)
    if as_json:
        print_json({"user": user, "keys": acl.keys(queues or ()), "commands": acl.commands(arq=arq), "rule": line})
    else:
        print(line)
