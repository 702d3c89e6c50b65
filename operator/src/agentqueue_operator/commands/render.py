"""Command `agentqueue render` (entry point group `agentqueue.commands`). Heavy imports wait until it runs."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from agentqueue.errors import InvalidSpec


class Output(StrEnum):
    """Format of the manifests."""

    YAML = "yaml"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("render")(render)


def render(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A YAML file, or - for standard input.")],
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", "-n", help="Namespace of the objects. Default: the resource's own, else default."),
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="Format.")] = Output.YAML,
) -> None:
    """Print the Kubernetes objects that the operator creates for AgentQueue resources, without a cluster.

    Passwords and tokens are placeholders, and the number of workers is that of empty queues. Images that the resource
    does not name are those of the operator's settings (AGENTQUEUE_OPERATOR_WORKER_IMAGE and so on).
    """
    from agentqueue.spec import load, load_file, resolve  # noqa: PLC0415
    from agentqueue_operator.controller.settings import read_settings  # noqa: PLC0415
    from agentqueue_operator.resources.printing import as_json, as_yaml, offline_manifests  # noqa: PLC0415
    from agentqueue_operator.resources.render import Images  # noqa: PLC0415

    try:
        loaded = load(sys.stdin.read(), "<stdin>") if file == "-" else load_file(Path(file))
        loaded.some()
        settings = read_settings(os.environ)
        images = Images(settings.worker_image, settings.redis_image, settings.console_image)
        queues = [resolve(queue) for queue in loaded.queues]
        manifests = [it for queue in queues for it in offline_manifests(queue, namespace, images)]
    except InvalidSpec as error:
        print(error, file=sys.stderr)
        raise typer.Exit(1) from None
    if (reconfigure := getattr(sys.stdout, "reconfigure", None)) is not None:
        reconfigure(encoding="utf-8")  # Readers of manifests expect UTF-8, regardless of the locale.
    print(as_yaml(manifests) if output is Output.YAML else as_json(manifests), end="")
