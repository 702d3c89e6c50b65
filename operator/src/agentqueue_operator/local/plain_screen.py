"""Output of `agentqueue up` to a pipe or a file; `terminal_screen` is for terminals."""

from collections.abc import Iterable, Sequence
from typing import Final, Self, TextIO

from agentqueue.clock import now_ms
from agentqueue.model.times import from_ms
from agentqueue.service.safe_streams import drop_when_blocked
from agentqueue_operator.local.ports import Row

UP: Final = "up"
"""Source of the lines about `up` itself."""
TITLES: Final = ("AGENT", "WORKERS", "WAITING", "ACTIVE", "DONE", "DEAD", "RATE", "LAST CHANGE")


class PlainScreen:
    """Prints lines with their time and source, without a table.

    If the reader has gone (`| head`) or waits (`| less`), or the disk is full, lines are lost and the agents continue.
    """

    def __init__(self, out: TextIO, *, quiet: bool, width: int) -> None:
        self._out = drop_when_blocked(out)
        self._quiet = quiet
        self._width = width

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._write("")

    def print_output(self, worker: str, line: str) -> None:
        """Print a line of a worker's output."""
        if not self._quiet:
            self._write_line(worker, line)

    def print_line(self, source: str, text: str, *, error: bool = False) -> None:
        """Print a line of `up`."""
        now = from_ms(now_ms()).astimezone()
        self._write_line(source, f"{now:%H:%M:%S} {'error: ' if error else ''}{text}")

    def show(self, rows: Iterable[Row]) -> None:
        """Do nothing: changes are printed as lines when they happen."""

    def finish(self, rows: Sequence[Row]) -> None:
        """Print the final summary as a plain table."""
        table = [TITLES[:-2], *(cells_of(row)[:-2] for row in rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        for line in table:
            self._write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n")

    def _write_line(self, source: str, text: str) -> None:
        self._write(f"{source:<{self._width}} | {text}\n")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def cells_of(row: Row) -> tuple[str, ...]:
    """Return the row as text, in the order of TITLES."""
    workers = [f"{row.ready}/{row.wanted}"]
    workers += [f"{row.starting} starting"] if row.starting else []
    workers += [f"{row.draining} draining"] if row.draining else []
    waiting = f"{row.waiting} +{row.delayed} later" if row.delayed else str(row.waiting)
    waiting += f" +{row.suspended} suspended" if row.suspended else ""
    numbers = (str(row.active), str(row.done), str(row.dead), f"{row.rate_per_s:.1f}/s")
    return (row.agent, ", ".join(workers), waiting, *numbers, row.note)
