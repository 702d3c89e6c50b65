"""The `agentqueue` command.

Commands come from the entry point group `agentqueue.commands` (each value a function `register(app)`), beside those of
this package: so that the operator's and the worker's distributions bring theirs, and the library imports neither.
Nothing heavy is imported until a command runs: `agentqueue --help` takes under 0.3 s.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from typer.core import TyperGroup

from agentqueue import __version__
from agentqueue.cli import acl, dead_letters, jobs, queues, submit
from agentqueue.cli.connection import ContextOption, InOption, offer_places, take_place, takes_place
from agentqueue.cli.streams import prepare_streams
from agentqueue.errors import AgentQueueError, UsageError
from agentqueue.redaction import redact
from agentqueue.service.error_report import DONE, FAILED, package_of, report

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GROUP = "agentqueue.commands"
OWN = (submit, jobs, queues, dead_letters, acl)
BROUGHT: Final = {
    "up": ("operator", "agentqueue-operator"),
    "explain": ("operator", "agentqueue-operator"),
    "render": ("operator", "agentqueue-operator"),
    "worker": ("worker", "agentqueue-worker"),
}
"""Commands that other distributions bring, and which."""


class _Group(TyperGroup):
    """Hides passwords in the parser's own errors, which quote what was typed (`agentqueue redis://:password@host`)."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of that name; say what to install for one that another distribution brings."""
        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in BROUGHT and ctx.parent is None:
            what, package = BROUGHT[cmd_name]
            raise UsageError(f"`agentqueue {cmd_name}` comes with the {what}: pip install {package}")
        return command

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the command line."""
        with _redacted():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, whose own arguments are parsed here."""
        with _redacted():
            return super().invoke(ctx)


@contextmanager
def _redacted() -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        message = getattr(exc, "message", None)  # of click's errors, which typer carries a copy of
        if isinstance(message, str):
            exc.message = redact(message)  # type: ignore[attr-defined]
        raise


def main() -> NoReturn:
    """Run the command line and exit."""
    prepare_streams()
    arguments, debug = _without_debug(sys.argv[1:])
    sys.exit(run(arguments, debug=debug))


def run(arguments: Sequence[str], *, debug: bool = False) -> int:
    """Run one command. Returns its exit code: 0 done, 1 failed, 2 usage, 3 not found, 130 interrupted."""
    code = _run(arguments, debug=debug)
    try:
        sys.stdout.flush()  # here, where a failure can be told
    except BrokenPipeError:  # who read it has seen enough
        return code or FAILED
    except AgentQueueError as exc:
        return report(exc, _label(), debug=debug)
    return code


def _run(arguments: Sequence[str], *, debug: bool) -> int:
    app = build_app(rich_help=sys.stdout.isatty())
    try:
        app(args=list(arguments), prog_name="agentqueue")
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else FAILED
    except Exception as exc:  # noqa: BLE001  # the last resort: a line to read instead of a page
        return report(exc, _label(), debug=debug)
    return DONE


def _label() -> str:
    return "\033[1;31merror:\033[0m" if sys.stderr.isatty() else "error:"


def build_app(*, rich_help: bool = False, extensions: bool = True) -> typer.Typer:
    """The command with all its commands; `extensions`: with those that other distributions bring."""
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
    for module in OWN:
        module.register(app)
    app.command("version")(print_version)
    for extension in sorted(entry_points(group=GROUP) if extensions else (), key=lambda point: point.name):
        _load(extension, app)
    offer_places(app)
    return app


def _load(extension: EntryPoint, app: typer.Typer) -> None:
    """One distribution that does not import must not take the other commands away."""
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
    del debug, version  # both have acted: --debug in main, from any place on the line
    commands: dict[str, Any] = getattr(ctx.command, "commands", {})
    command = commands.get(ctx.invoked_subcommand or "")
    if (in_ or context) and command is not None and not takes_place(command):
        raise UsageError(f"`agentqueue {ctx.invoked_subcommand}` does not connect to a cluster's Redis: leave out --in")
    take_place(in_, context, anew=True)


def print_version() -> None:
    """Print the version."""
    print(f"agentqueue {__version__}")


def _without_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """`--debug` may stand anywhere before a `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    before = [argument for argument in arguments[:end] if argument != "--debug"]
    return [*before, *arguments[end:]], len(before) < end
