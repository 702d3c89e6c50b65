"""How commands speak: tables and colours on a terminal, plain aligned text in a pipe, JSON when asked.

What users sent (payloads, errors, names) is shown without its control characters.
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
    "active": "cyan",
    "completed": "green",
    "dead": "red",
    "cancelled": "magenta",
    "paused": "yellow",
}
MAX_CELL = 120
GAP = 3
"""Between two columns of a Rich table."""
EDGES = 2
"""Its first and last column of the screen, which stay blank."""
LEAST_TEXT = 20
"""Columns that a text is folded into, and not into fewer."""


def on_terminal() -> bool:
    """Whether people look at standard output."""
    return sys.stdout.isatty()


def print_json(value: Any, *, indent: bool = True) -> None:
    """One JSON document; without `indent` on one line, for a stream of them."""
    import orjson  # noqa: PLC0415

    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0).decode()
    print(encodable_json(text, sys.stdout.encoding or "utf-8"), flush=True)


def encodable_json(text: str, encoding: str) -> str:
    """The same JSON, its letters as `\\u…` where the encoding lacks one: escaped in Python's way it would be none."""
    import json  # noqa: PLC0415

    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in text)
    return text


def to_text(value: Any) -> str:
    """A JSON value in one line; text as it is."""
    import orjson  # noqa: PLC0415

    if value is None:
        return "-"
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def clean(text: str, *, lines: bool = False) -> str:
    """Without control characters, which could move the cursor or forge output; `lines` keeps line ends and tabs."""
    return "".join(c if c.isprintable() or (lines and c in "\n\t") else "\N{REPLACEMENT CHARACTER}" for c in text)


def cell(value: Any, most: int = MAX_CELL) -> str:
    """A value as a table shows it: one line, cut."""
    text = clean(" ".join(to_text(value).split()))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str, spare: Sequence[str] = ()
) -> None:
    """Rows under columns; `empty` is said on standard error when there are none. `spare`: as of `column_widths`."""
    cells = [[cell(value) for value in row] for row in rows]
    if not cells:
        print(empty, file=sys.stderr)
    elif on_terminal():
        _console().print(table(columns, cells, spare))
    else:
        print(aligned(columns, cells))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], spare: Sequence[str] = ()) -> RenderableType:
    """A Rich table as wide as the terminal: numbers to the right, states coloured, `spare` as of `column_widths`."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    widths = column_widths(columns, rows, width=_console().width, spare=spare)
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
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, width: int, spare: Sequence[str]
) -> dict[str, int | None]:
    """The width of each column that has room; None: Rich's choice, as some word must be folded.

    Texts are folded first, then `spare` columns are left out: those that say nothing, then the first first. What has
    room once a wider one is gone comes back.
    """
    cells = {name: [row[index] for row in rows] for index, name in enumerate(columns)}
    full = {name: max(map(len, [name, *column])) for name, column in cells.items()}
    texts = {name for name, column in cells.items() if any(" " in text for text in column)}
    out = {name: min(size, max(len(name), LEAST_TEXT)) if name in texts else size for name, size in full.items()}
    gone: dict[str, int] = {}
    for name in sorted(spare, key=lambda name: any(text != "-" for text in cells[name])):
        if _room(out, width) < 0:
            gone[name] = out.pop(name)
    for name in reversed(gone):
        if _room(out, width) >= gone[name] + GAP:
            out[name] = gone[name]
    if _room(out, width) < 0:
        return dict.fromkeys(out)
    for name, least in out.items():
        out[name] = min(full[name], least + _room(out, width))
    return {**out}


def _room(widths: Mapping[str, int], width: int) -> int:
    return width - EDGES - sum(widths.values()) - GAP * (len(widths) - 1)


def aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text: a header in capitals, columns two spaces apart."""
    lines = [[name.upper().replace(" ", "-") for name in columns], *rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def print_fields(fields: Mapping[str, Any]) -> None:
    """Names and values, one a line; what is None is left out."""
    shown = {name: clean(to_text(value), lines=True) for name, value in fields.items() if value is not None}
    if on_terminal():
        _console().print(field_grid(shown))
        return
    width = max(map(len, shown)) + 1
    for name, value in shown.items():
        print(f"{name + ':':<{width}} {value}")


def field_grid(fields: Mapping[str, str]) -> RenderableType:
    """Names and values as a Rich grid."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    grid = Table.grid(padding=(0, 2))
    for name, value in fields.items():
        grid.add_row(Text(name, style="bold"), Text(value, style=COLOURS.get(value, "")))
    return grid


def say(message: str, *, style: str = "") -> None:
    """One line on standard output."""
    text = clean(message)
    if on_terminal():
        from rich.text import Text  # noqa: PLC0415

        _console().print(Text(text, style=style))
    else:
        print(text, flush=True)


def warn(message: str) -> None:
    """One line on standard error."""
    print(clean(message), file=sys.stderr, flush=True)


def _console() -> Any:
    from rich.console import Console  # noqa: PLC0415

    return Console(highlight=False)


def ago(moment: datetime | None, now: datetime) -> str:
    """`12s`, `3m`, `5h`, `2d` before (or, with a plus, after) now."""
    return "-" if moment is None else span((now - moment).total_seconds())


def span(seconds: float | None) -> str:
    """A duration in its largest unit; negative ones (still to come) with `in `."""
    if seconds is None:
        return "-"
    prefix, rest = ("in ", timedelta(seconds=-seconds)) if seconds < 0 else ("", timedelta(seconds=seconds))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if rest.total_seconds() >= size:
            return f"{prefix}{int(rest.total_seconds() // size)}{unit}"
    return f"{prefix}{int(rest.total_seconds())}s"


def counted(number: int, noun: str) -> str:
    """`1 job`, `2,000 jobs`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
