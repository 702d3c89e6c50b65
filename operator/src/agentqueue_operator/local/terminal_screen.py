"""What `agentqueue up` shows on a terminal: the log scrolls, a table of the agents stays below it."""

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


class LiveScreen:
    """The log scrolls, the table stays below it."""

    EVERY_S: Final = 0.25
    """Drawn at most so often: people can't read faster."""

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

    def tell(self, worker: str, line: str) -> None:
        """A line that a worker wrote, with its own colours."""
        if not self._quiet:
            self._print(worker, Text.from_ansi(line))

    def say(self, who: str, text: str, *, bad: bool = False) -> None:
        """A line of our own."""
        self._print(who, Text(text, style="bold red" if bad else "bold"))

    def show(self, rows: Iterable[Row]) -> None:
        """Redraw the table."""
        if monotonic() - self._drawn >= self.EVERY_S:
            self._drawn = monotonic()
            self._live.update(_table(rows), refresh=True)

    def finish(self, rows: Sequence[Row]) -> None:
        """The last table stays."""
        self._live.stop()
        self._console.print(_table(rows))

    def _print(self, who: str, text: Text) -> None:
        name = who.rpartition("-")[0] or who
        color = _COLORS[sum(name.encode()) % len(_COLORS)]
        self._console.print(Text(f"{who:<{self._width}} | ", style=color), text, sep="", soft_wrap=True)


def _table(rows: Iterable[Row]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in TITLES:
        numeric = title not in ("AGENT", "WORKERS", "LAST CHANGE")
        table.add_column(title, justify="right" if numeric else "left", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*cells_of(row))
    return table
