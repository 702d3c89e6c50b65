"""What `agentqueue up` shows in a pipe or a file; `adapters.live` is for terminals."""

from collections.abc import Iterable, Sequence
from typing import Final, Self, TextIO

from agentqueue.clock import now_ms
from agentqueue.model.times import from_ms
from agentqueue.service.safe_streams import drop_when_blocked
from agentqueue_operator.local.ports import Row

UP: Final = "up"
"""Who speaks when `up` speaks of itself."""
TITLES: Final = ("AGENT", "WORKERS", "WAITING", "ACTIVE", "DONE", "DEAD", "RATE", "LAST CHANGE")


class PlainScreen:
    """Lines for a pipe or a file: each with the time and who it is about. The table is left out.

    Where the reader is gone (`| head`) or waits (`| less`), or the disk is full, lines are lost and the agents run on.
    """

    def __init__(self, out: TextIO, *, quiet: bool, width: int) -> None:
        self._out = drop_when_blocked(out)
        self._quiet = quiet
        self._width = width

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write("")

    def tell(self, worker: str, line: str) -> None:
        """A line that a worker wrote."""
        if not self._quiet:
            self._line(worker, line)

    def say(self, who: str, text: str, *, bad: bool = False) -> None:
        """A line of our own."""
        now = from_ms(now_ms()).astimezone()
        self._line(who, f"{now:%H:%M:%S} {'error: ' if bad else ''}{text}")

    def show(self, rows: Iterable[Row]) -> None:
        """Nothing: changes are said as they happen."""

    def finish(self, rows: Sequence[Row]) -> None:
        """The summary at the end, as a plain table."""
        table = [TITLES[:-2], *(cells_of(row)[:-2] for row in rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        for line in table:
            self._write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n")

    def _line(self, who: str, text: str) -> None:
        self._write(f"{who:<{self._width}} | {text}\n")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def cells_of(row: Row) -> tuple[str, ...]:
    """The row as text, under TITLES."""
    waiting = f"{row.waiting} +{row.delayed} later" if row.delayed else str(row.waiting)
    numbers = (str(row.active), str(row.done), str(row.dead), f"{row.rate_per_s:.1f}/s")
    return (row.agent, _workers(row), waiting, *numbers, row.note)


def _workers(row: Row) -> str:
    parts = [f"{row.ready}/{row.wanted}"]
    parts += [f"{row.starting} starting"] if row.starting else []
    parts += [f"{row.draining} draining"] if row.draining else []
    return ", ".join(parts)
