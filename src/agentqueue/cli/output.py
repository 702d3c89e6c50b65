"""Output of commands: tables and colours on a terminal, aligned plain text in a pipe, JSON with --json.

Text from users (payloads, errors, names) is shown without control characters.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import RenderableType

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
COLOURS = {
    "waiting": "yellow",
    "delayed": "blue",
    "suspended": "blue",
    "active": "cyan",
    "completed": "green",
    "dead": "red",
    "cancelled": "magenta",
    "paused": "yellow",
}
"""Rich's colour of each state of a job or queue."""
MAX_CELL = 120
"""Characters of a value in a table. A longer value is cut, so that one error message does not fill the screen."""
GAP = 3
"""Characters between two columns of a Rich table."""
EDGES = 2
"""Blank characters of a Rich table: the first and the last one of each line."""
MIN_TEXT_WIDTH = 20
"""Smallest width of a folded text column, in characters. Narrower text is hard to read."""


def on_terminal() -> bool:
    """Return whether standard output is a terminal."""
    return sys.stdout.isatty()


def print_json(value: Any, *, indent: bool = True) -> None:
    """Print a JSON document. Without `indent` it is on one line, for a stream of documents."""
    import orjson  # noqa: PLC0415

    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0).decode()
    print(encodable_json(text, sys.stdout.encoding or "utf-8"), flush=True)


def encodable_json(text: str, encoding: str) -> str:
    r"""Return the JSON text with `\u…` for characters that the encoding lacks.

    Python's `backslashreplace` would write invalid JSON.
    """
    import json  # noqa: PLC0415

    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in text)
    return text


def to_text(value: Any) -> str:
    """Return a JSON value as one line of text. A string is returned unchanged."""
    import orjson  # noqa: PLC0415

    if value is None:
        return "-"
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def printable(text: str, *, lines: bool = False) -> str:
    """Return the text without control characters, which could move the cursor or forge output.

    Args:
        text: The text of a user.
        lines: Keep line ends and tabs.
    """
    return "".join(c if c.isprintable() or (lines and c in "\n\t") else "\N{REPLACEMENT CHARACTER}" for c in text)


def cell(value: Any, max_length: int = MAX_CELL) -> str:
    """Return a value as a table shows it: on one line, cut to `max_length` characters."""
    text = printable(" ".join(to_text(value).split()))
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str, optional_columns: Sequence[str] = ()
) -> None:
    """Print rows under the names of their columns.

    Args:
        columns: The names of the columns.
        rows: A value for each column.
        empty: The message on standard error if there are no rows.
        optional_columns: See `column_widths`.
    """
    cells = [[cell(value) for value in row] for row in rows]
    if not cells:
        print(empty, file=sys.stderr)
    elif on_terminal():
        _console().print(rich_table(columns, cells, optional_columns))
    else:
        print(plain_table(columns, cells))


def rich_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], optional_columns: Sequence[str] = ()
) -> RenderableType:
    """Return a Rich table that fits the terminal. Numbers are aligned right, and states have colours.

    Args:
        columns: The names of the columns.
        rows: A text for each column.
        optional_columns: See `column_widths`.
    """
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    widths = column_widths(columns, rows, width=_console().width, optional_columns=optional_columns)
    left_out = [name for name in columns if name not in widths]
    caption = f"no room for: {', '.join(left_out)}" if left_out else None
    out = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, caption=caption, caption_justify="left")
    for index, name in enumerate(columns):
        if name not in widths:
            continue
        numeric = bool(rows) and all(row[index].replace(".", "").isdigit() or row[index] == "-" for row in rows)
        out.add_column(name, justify="right" if numeric else "left", overflow="fold", width=widths[name])
    for row in rows:
        shown = (text for name, text in zip(columns, row, strict=True) if name in widths)
        out.add_row(*(Text(text, style=COLOURS.get(text, "")) for text in shown))
    return out


def column_widths(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, width: int, optional_columns: Sequence[str]
) -> dict[str, int | None]:
    """Return the width of each column that is shown.

    If the table is too wide, text columns are folded. If it is still too wide, optional columns are dropped, empty ones
    first. Then each dropped column that fits into the space left is added again.

    Args:
        columns: The names of the columns.
        rows: A text for each column.
        width: The width of the screen, in characters.
        optional_columns: The columns that can be dropped, the least important one first.

    Returns:
        Widths in characters. If even that does not fit, all widths are None, and Rich decides.
    """
    cells = {name: [row[index] for row in rows] for index, name in enumerate(columns)}
    full = {name: max(map(len, [name, *texts])) for name, texts in cells.items()}
    folded = {
        name: min(full[name], max(len(name), MIN_TEXT_WIDTH)) if any(" " in text for text in texts) else full[name]
        for name, texts in cells.items()
    }

    def room(names: Sequence[str]) -> int:
        return width - EDGES - GAP * (len(names) - 1) - sum(folded[name] for name in names)

    shown, dropped = list(columns), []
    for name in sorted(optional_columns, key=lambda name: any(text != "-" for text in cells[name])):
        if room(shown) < 0:
            shown.remove(name)
            dropped.append(name)
    for name in reversed(dropped):
        if room([*shown, name]) >= 0:
            shown.append(name)
    free = room(shown)
    if free < 0:
        return dict.fromkeys(shown)
    widths: dict[str, int | None] = {}
    for name in (name for name in columns if name in shown):
        added = min(full[name] - folded[name], free)
        widths[name] = folded[name] + added
        free -= added
    return widths


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table as plain text, with a header in capitals and two spaces between columns."""
    lines = [[name.upper().replace(" ", "-") for name in columns], *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print names and values, one per line. A value of None is left out."""
    shown = {name: printable(to_text(value), lines=True) for name, value in fields.items() if value is not None}
    if on_terminal():
        _console().print(rich_fields(shown))
        return
    width = max(map(len, shown)) + 1
    for name, value in shown.items():
        print(f"{name + ':':<{width}} {value}")


def rich_fields(fields: Mapping[str, str]) -> RenderableType:
    """Return names and values as a Rich grid."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    grid = Table.grid(padding=(0, 2))
    for name, value in fields.items():
        grid.add_row(Text(name, style="bold"), Text(value, style=COLOURS.get(value, "")))
    return grid


def print_line(message: str, *, style: str = "") -> None:
    """Print one line on standard output, in Rich's `style` on a terminal."""
    text = printable(message)
    if on_terminal():
        from rich.text import Text  # noqa: PLC0415

        _console().print(Text(text, style=style))
    else:
        print(text, flush=True)


def warn(message: str) -> None:
    """Print one line on standard error."""
    print(printable(message), file=sys.stderr, flush=True)


def _console() -> Any:
    from rich.console import Console  # noqa: PLC0415

    return Console(highlight=False)


def format_age(moment: datetime | None, now: datetime) -> str:
    """Return the time from `moment` to `now`, like `12s`, `3m`, `5h` or `2d`; `-` without a moment."""
    return "-" if moment is None else format_duration((now - moment).total_seconds())


def format_duration(seconds: float | None) -> str:
    """Return a duration in its largest unit, like `3m`; a negative one, for a time in the future, like `in 3m`."""
    if seconds is None:
        return "-"
    prefix, rest = ("in ", timedelta(seconds=-seconds)) if seconds < 0 else ("", timedelta(seconds=seconds))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if rest.total_seconds() >= size:
            return f"{prefix}{int(rest.total_seconds() // size)}{unit}"
    return f"{prefix}{int(rest.total_seconds())}s"


def user_and_host() -> str:
    """Return `user@host`, for the note of a pause and the sender of a signal."""
    import getpass  # noqa: PLC0415
    import socket  # noqa: PLC0415

    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):  # In many containers, the user ID has no name.
        return socket.gethostname()
