"""The commands of the worker, an entry point of group `agentqueue.commands`. Heavy imports wait until they run."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from agentqueue_worker.commands.check import check

PANEL = "Run"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("worker", rich_help_panel=PANEL)(worker)
    app.command("check", rich_help_panel=PANEL)(check)


def worker(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="TARGET",
            help="module:attribute of an Agent, or of an arq WorkerSettings class. Default: AGENTQUEUE_HANDLER.",
        ),
    ] = None,
    *,
    redis: Annotated[
        str | None,
        typer.Option(
            "--redis",
            metavar="URL",
            help="Redis to serve. Default: AGENTQUEUE_REDIS_URL, else REDIS_URL, else the `up` of this folder.",
        ),
    ] = None,
    queue: Annotated[
        str | None, typer.Option("--queue", "-q", metavar="NAME", help="Queue to serve. Default: the agent's own.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-c", min=1, max=10_000, help="Jobs at a time. Default: 5.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The worker's name. Default: host and process id.")
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option("--grace", min=0, metavar="SECONDS", help="Time for running jobs after SIGTERM. Default: 60."),
    ] = None,
    limits: Annotated[
        Path | None,
        typer.Option(
            "--limits",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="JSON file with the agent's limits, a list as spec.limits. Default: AGENTQUEUE_LIMITS.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65_535, help="Port of /metrics, /healthz and /readyz. Default: not served."),
    ] = None,
    burst: Annotated[bool, typer.Option("--burst", help="End when no job is ready and none runs.")] = False,
    arq_pickle: Annotated[
        bool,
        typer.Option("--arq-pickle", help="Read and write pickles, arq's default. Only for a Redis you trust."),
    ] = False,
    allow_eviction: Annotated[
        bool, typer.Option("--allow-eviction", help="Accept a Redis that evicts keys when full. Jobs may be lost.")
    ] = False,
    log_level: Annotated[
        str | None, typer.Option("--log-level", metavar="LEVEL", help="debug, info (default), warning or error.")
    ] = None,
) -> None:
    """Run jobs of a queue until Ctrl-C or SIGTERM, then let the running ones finish.

    Other settings come from AGENTQUEUE_… variables, as in a cluster. Options override them.
    """
    import os  # noqa: PLC0415

    from agentqueue.cli.connection import cluster_ref, connection_from_environment, resolve_connection  # noqa: PLC0415
    from agentqueue.service import environment as env  # noqa: PLC0415
    from agentqueue.service.logging import set_up_logs  # noqa: PLC0415
    from agentqueue_worker.process import load_program, run_program  # noqa: PLC0415
    from agentqueue_worker.settings import read_settings  # noqa: PLC0415

    options = {
        "--queue": (env.QUEUE, queue),
        "--concurrency": (env.CONCURRENCY, concurrency),
        "--name": (env.WORKER_NAME, name),
        "--grace": (env.GRACE_PERIOD, grace),
        "--port": (env.PROBE_PORT, port),
        "--limits": (env.LIMITS, None if limits is None else limits.read_text()),
        "--log-level": (env.LOG_LEVEL, log_level),
    }
    settings = read_settings(os.environ, options)
    set_up_logs(settings.log_level, settings.log_format)
    settings = settings.override(
        handler=target, burst=burst or None, arq_pickle=arq_pickle or None, allow_eviction=allow_eviction or None
    )
    # An arq WorkerSettings may name its own Redis, which --redis and --in override.
    with resolve_connection(redis) if redis or cluster_ref() else nullcontext() as given_server:
        settings = settings.override(redis=given_server)
        run_program(load_program(settings, lambda: connection_from_environment(None, Path.cwd())))
