"""`agentqueue validate` and `agentqueue crd`: the AgentQueue resource, without a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from agentqueue.cli.output import AsJson, print_json

# pydantic and ruamel are imported when a command runs, so that `agentqueue --help` stays fast.

FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="A YAML file, or - for standard input.")]
Old = Annotated[Path | None, typer.Option(help="The present resource. Also check that no immutable field changes.")]


def register(app: typer.Typer) -> None:
    """Add the commands (entry point group `agentqueue.commands`)."""
    app.command()(validate)
    app.command("crd")(print_crd)


def validate(file: FileArgument, old: Old = None, as_json: AsJson = False) -> None:
    """Check AgentQueue resources as the API server would, without a cluster.

    Prints every problem with its line and a correction. Exits with 1 if there is a problem.
    """
    from agentqueue.spec import InvalidResource, load, load_file  # noqa: PLC0415

    before = load_file(old) if old else None
    try:
        loaded = load(sys.stdin.read(), "<stdin>", before) if file == "-" else load_file(Path(file), before)
        loaded.some()
    except InvalidResource as error:
        problems = [problem.as_json() for problem in error.problems]
        if as_json:
            print_json({"valid": False, "problems": problems})
        else:
            print(error, file=sys.stderr)
            print(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}", file=sys.stderr)
        raise typer.Exit(1) from None
    found = {queue.metadata.name: [agent.name for agent in queue.spec.agents] for queue in loaded.queues}
    others = [str(other["kind"]) for other in loaded.others]
    if as_json:
        queues = [{"name": name, "agents": agents} for name, agents in found.items()]
        print_json({"valid": True, "queues": queues, "others": others})
        return
    for name, agents in found.items():
        print(f"{loaded.source}: AgentQueue {name} is valid (agents: {', '.join(agents)})")
    if others:
        print(f"{loaded.source}: not checked: {', '.join(others)}")


def print_crd(as_json: AsJson = False) -> None:
    """Print the CustomResourceDefinition, for `kubectl apply -f -`."""
    from agentqueue.spec import crd  # noqa: PLC0415

    if as_json:
        print_json(crd.crd())
    else:
        print(crd.crd_yaml(), end="")
