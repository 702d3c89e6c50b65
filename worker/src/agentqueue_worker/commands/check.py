"""The command `agentqueue check`. Heavy imports wait until it runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from agentqueue.cli.output import AsJson, print_json, print_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentqueue.agent.definition import Agent
    from agentqueue.agent.lint import LintWarning


def check(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="module:attribute of an Agent.")],
    as_json: AsJson = False,
) -> None:
    """Load an agent as a worker does, show its jobs, and warn of code that does not work over suspensions.

    It warns of asyncio.timeout, wait_for, wait and as_completed around ctx.wait_for, sleep, gather, first and child:
    each run starts them again. Exits with 1 if there is a warning.
    """
    from agentqueue.agent.definition import Agent  # noqa: PLC0415
    from agentqueue.errors import UsageError  # noqa: PLC0415
    from agentqueue_worker.adapters.loader import load_target  # noqa: PLC0415

    agent = load_target(target)
    if not isinstance(agent, Agent):
        raise UsageError(f"{target} is {type(agent).__name__} and no Agent; its handlers have no context to check")
    warnings = _warnings_of(agent)
    if as_json:
        found = [{"file": it.path, "line": it.line, "message": it.message} for it in warnings]
        print_json({"queue": agent.queue, "jobs": sorted(agent.jobs), "warnings": found})
    else:
        print_line(f"{target}: queue {agent.queue}, jobs: {', '.join(sorted(agent.jobs)) or 'none'}")
        for warning in warnings:
            print(warning, file=sys.stderr)
    if warnings:
        raise typer.Exit(1)


def _warnings_of(agent: Agent) -> Sequence[LintWarning]:
    """Return the warnings of the modules that an agent's handlers are in."""
    import inspect  # noqa: PLC0415
    from pathlib import Path  # noqa: PLC0415

    from agentqueue.agent.lint import find_limited_waits  # noqa: PLC0415

    functions = [inspect.unwrap(job.func) for job in agent.jobs.values()]
    files = {inspect.getsourcefile(function) for function in functions if inspect.isroutine(function)}
    paths = [Path(file) for file in sorted(filter(None, files))]
    return [warning for path in paths for warning in find_limited_waits(path.read_text(encoding="utf-8"), str(path))]
