"""Output of `agentqueue up` to a terminal: the log scrolls, and a table of the agents stays below it."""

import sys
from collections.abc import Iterable, Sequence
from typing import Final, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agentqueue.clock import monotonic
from agentqueue.service.safe_streams import drop_when_blocked
from agentqueue_operator.local.plain_screen import TITLES, cells_of
from agentqueue_operator.local.ports import Row

_COLORS: Final = ("cyan", "green", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta", "bright_blue")


class TerminalScreen:
    """Prints lines above a table that is redrawn in place."""

    EVERY_S: Final = 0.25
    """Shortest interval between two redraws in seconds. People cannot read faster."""

    def __init__(self, *, quiet: bool, width: int) -> None:
        self._console = Console(highlight=False, file=drop_when_blocked(sys.stdout))
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._quiet = quiet
        self._width = width
        self._drawn = float("-inf")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def print_output(self, worker: str, line: str) -> None:
        """Print a line of a worker's output, with its own colours."""
        if not self._quiet:
            self._print(worker, Text.from_ansi(line))

    def print_line(self, source: str, text: str, *, error: bool = False) -> None:
        """Print a line of `up`."""
        self._print(source, Text(text, style="bold red" if error else "bold"))

    def show(self, rows: Iterable[Row]) -> None:
        """Redraw the table."""
        if monotonic() - self._drawn >= self.EVERY_S:
            self._drawn = monotonic()
            self._live.update(_table(rows), refresh=True)

    def finish(self, rows: Sequence[Row]) -> None:
        """Print the final table."""
        self._live.stop()
        self._console.print(_table(rows))

    def _print(self, source: str, text: Text) -> None:
        name = source.rpartition("-")[0] or source
        color = _COLORS[sum(name.encode()) % len(_COLORS)]
        self._console.print(Text(f"{source:<{self._width}} | ", style=color), text, sep="", soft_wrap=True)


def _table(rows: Iterable[Row]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in TITLES:
        numeric = title not in ("AGENT", "WORKERS", "LAST CHANGE")
        table.add_column(title, justify="right" if numeric else "left", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*cells_of(row))
    return table
