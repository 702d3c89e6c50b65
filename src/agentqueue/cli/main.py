"""The `agentqueue` command.

Commands come from the entry point group `agentqueue.commands` (each value a function `register(app)`), beside those of
this package: so that the operator's and the worker's distributions bring theirs, and the library imports neither.
Nothing heavy is imported until a command runs: `agentqueue --help` takes under 0.3 s.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from agentqueue import __version__
from agentqueue.cli import dead, jobs, queues, submit
from agentqueue.cli.connect import ContextOption, InOption, offer_places, take_place, takes_place
from agentqueue.cli.streams import prepare_streams
from agentqueue.errors import AgentQueueError, NotFound, UsageError
from agentqueue.failures import describe_traceback, name_exception
from agentqueue.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GROUP = "agentqueue.commands"
DONE, FAILED, USAGE, NOT_FOUND, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes."""
OWN = (submit, jobs, queues, dead)


class _Group(TyperGroup):
    """Hides passwords in the parser's own errors, which quote what was typed (`agentqueue redis://:password@host`)."""

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
        return _explain(exc, str(exc), code=FAILED, debug=debug)
    return code


def _run(arguments: Sequence[str], *, debug: bool) -> int:
    app = build_app(rich_help=sys.stdout.isatty())
    try:
        app(args=list(arguments), prog_name="agentqueue")
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else FAILED
    except AgentQueueError as exc:
        return _explain(exc, str(exc), code=exit_code(exc), debug=debug)
    except Exception as exc:  # noqa: BLE001  # the last resort: a line to read instead of a page
        hint = "" if debug else "; --debug shows where, please report it"
        return _explain(exc, f"unexpected {name_exception(exc).line}{hint}", code=FAILED, debug=debug)
    return DONE


def exit_code(error: AgentQueueError) -> int:
    """2 for a usage error, 3 for something that is not known, else 1."""
    if isinstance(error, NotFound):
        return NOT_FOUND
    return USAGE if isinstance(error, UsageError) else FAILED


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
        print(f"warning: the commands of {extension.value} are missing: {exc}", file=sys.stderr)


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


def _explain(exc: Exception, message: str, *, code: int, debug: bool) -> int:
    if debug:
        print(redact(describe_traceback(exc)), file=sys.stderr, end="")
    label = "\033[1;31merror:\033[0m" if sys.stderr.isatty() else "error:"
    print(f"{label} {redact(message)}", file=sys.stderr)
    return code
