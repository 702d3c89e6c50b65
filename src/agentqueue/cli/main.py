"""The `agentqueue` command.

The library's own commands are in this package. The operator's and the worker's packages add theirs through the entry
point group `agentqueue.commands`; each value is a function `register(app)`. The library imports neither package.

Heavy modules are imported when a command runs, so that `agentqueue --help` takes less than 0.3 s.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from agentqueue import __version__
from agentqueue.cli import acl, dead_letters, jobs, queues, schedules, signals, submit, tail
from agentqueue.cli.connection import ContextOption, InOption, add_cluster_option, cluster_ref, has_cluster_option
from agentqueue.cli.streams import prepare_streams
from agentqueue.errors import AgentQueueError, UsageError
from agentqueue.redaction import redact
from agentqueue.service.error_report import DONE, FAILED, package_of, report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GROUP = "agentqueue.commands"
"""Entry point group of the commands that other packages add."""
MODULES = (submit, jobs, tail, signals, queues, schedules, dead_letters, acl)
"""Modules of the library's own commands, in the order of the help page."""
COMMANDS_OF_PACKAGES: Final = {
    "up": ("operator", "agentqueue-operator"),
    "explain": ("operator", "agentqueue-operator"),
    "render": ("operator", "agentqueue-operator"),
    "worker": ("worker", "agentqueue-worker"),
    "check": ("worker", "agentqueue-worker"),
}
"""Commands of other packages: the part of AgentQueue, and the package to install if the command is missing."""


class _Group(TyperGroup):
    """The program's group of commands.

    It hides passwords in the parser's errors, which quote the command line (`agentqueue redis://:password@host`).
    """

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command with that name.

        Raises:
            UsageError: Another package has the command, and it is not installed.
        """
        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in COMMANDS_OF_PACKAGES and ctx.parent is None:
            part, package = COMMANDS_OF_PACKAGES[cmd_name]
            raise UsageError(f"`agentqueue {cmd_name}` comes with the {part}: pip install {package}")
        return command

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the command line."""
        with _redacted():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Its own arguments are parsed here."""
        with _redacted():
            return super().invoke(ctx)


@contextmanager
def _redacted() -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        message = getattr(exc, "message", None)  # An error of click. It has no common type: typer has a copy of click.
        if isinstance(message, str):
            exc.message = redact(message)  # type: ignore[attr-defined]
        raise


def main() -> NoReturn:
    """Run the command line and exit."""
    prepare_streams()
    arguments, debug = _without_debug(sys.argv[1:])
    sys.exit(run(arguments, debug=debug))


def run(arguments: Sequence[str], *, debug: bool = False) -> int:
    """Run one command.

    Args:
        arguments: The command line without the program's name.
        debug: Print the traceback of an error.

    Returns:
        The exit code: 0 done, 1 failed, 2 usage error, 3 not found, 130 interrupted.
    """
    label = "\033[1;31merror:\033[0m" if sys.stderr.isatty() else "error:"
    try:
        build_command(rich_help=sys.stdout.isatty()).main(args=list(arguments), prog_name="agentqueue")
        code = DONE
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else FAILED
    except Exception as exc:  # noqa: BLE001  # the last resort: one line instead of a traceback
        code = report(exc, label, debug=debug)
    try:
        sys.stdout.flush()  # Python's own flush at exit could not report a failure.
    except BrokenPipeError:  # The reader has closed the pipe, which is not an error.
        return code or FAILED
    except AgentQueueError as exc:
        return report(exc, label, debug=debug)
    return code


def build_command(*, rich_help: bool = False, extensions: bool = True) -> Any:
    """Return the program with all its commands.

    Args:
        rich_help: Format the help page for a terminal.
        extensions: Add the commands of other packages.
    """
    app = typer.Typer(
        name="agentqueue",
        cls=_Group,
        help="Queues for AI agents: send jobs, follow them, look after queues and dead letters.",
        epilog="Where to connect: --redis URL, else AGENTQUEUE_REDIS_URL, else REDIS_URL, else the `agentqueue up` "
        "that runs for this folder; in a cluster: --in NAMESPACE/NAME. "
        "Exit codes: 0 done, 1 failed, 2 usage, 3 not found.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich" if rich_help else None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_global_options)
    for module in MODULES:
        module.register(app)
    app.command("version")(print_version)
    for extension in sorted(entry_points(group=GROUP) if extensions else (), key=lambda point: point.name):
        _load(extension, app)
    command = typer.main.get_command(app)
    add_cluster_option(command)
    return command


def _load(extension: EntryPoint, app: typer.Typer) -> None:
    """Add the commands of another package. If it cannot be imported, warn and keep the other commands."""
    try:
        extension.load()(app)
    except ImportError as exc:
        package = package_of(exc)
        advice = f"; pip install '{package}'" if package else ""
        print(f"warning: the commands of {extension.value} are missing: {exc}{advice}", file=sys.stderr)


def _show_version(value: bool) -> None:
    if value:
        print_version()
        raise typer.Exit


def _global_options(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="With an error, show the traceback too.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
    in_: InOption = None,
    context: ContextOption = None,
) -> None:
    # `main` has handled --debug, which can stand anywhere on the line. The others have callbacks.
    del debug, version, in_, context
    commands: dict[str, Any] = getattr(ctx.command, "commands", {})
    command = commands.get(ctx.invoked_subcommand or "")
    if command is not None and not has_cluster_option(command) and cluster_ref() is not None:
        raise UsageError(f"`agentqueue {ctx.invoked_subcommand}` does not connect to a cluster's Redis: leave out --in")


def print_version() -> None:
    """Print the version."""
    print(f"agentqueue {__version__}")


def _without_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Return the arguments without `--debug`, and whether it was there. It can stand anywhere before a `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    before = [argument for argument in arguments[:end] if argument != "--debug"]
    return [*before, *arguments[end:]], len(before) < end
