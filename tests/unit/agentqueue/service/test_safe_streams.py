"""Streams whose writes never fail and never block for long."""

import gc
import io
import os
import select
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import pytest

from agentqueue.service import safe_streams as module
from agentqueue.service.safe_streams import drop_when_blocked


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """Yield both ends of a pipe, the second one opened as Python opens stdout."""
    reader, writer = os.pipe()
    with open(writer, "w", encoding="ascii") as stream:  # noqa: PTH123  # a file descriptor
        yield reader, stream
    with suppress(OSError):  # the test has closed it
        os.close(reader)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.01)


def drain(reader: int) -> bytes:
    """Return the bytes that can be read now."""
    found = b""
    while select.select([reader], [], [], 0)[0]:
        found += os.read(reader, 65_536)
    return found


def test_a_reader_gets_all_output_in_order(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    out = drop_when_blocked(stream)
    lines = [f"{n} " + "x" * 3_000 for n in range(15)]  # the capacity of a pipe
    for line in lines:
        print(line, file=out, flush=True)
    out.write("a")
    out.flush()
    out.write("b\n")
    out.flush()
    assert drain(reader).decode().splitlines() == [*lines, "ab"]


@pytest.mark.usefixtures("impatient")
def test_output_is_dropped_while_nobody_reads_and_later_lines_are_complete(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    out = drop_when_blocked(stream)
    for n in range(100):
        print(n, "x" * 10_000, file=out, flush=True)
    first = drain(reader).decode().splitlines()
    print("again", file=out, flush=True)
    assert first[0] == "0 " + "x" * 10_000
    assert 5 <= len(first) <= 8, "64 KiB of them"
    assert drain(reader).decode().splitlines()[-1] == "again"


def test_writes_do_not_fail_without_a_reader(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    os.close(reader)
    out = drop_when_blocked(stream)
    assert out.write("x" * 100_000) == 100_000
    out.flush()
    out.close()


def test_characters_that_the_encoding_lacks_are_escaped(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    print("\N{SNOWMAN} \ud800", file=drop_when_blocked(stream), flush=True)
    assert drain(reader) == b"\\u2603 \\ud800\n"


def test_it_is_an_ordinary_text_file(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    out = drop_when_blocked(stream)
    assert isinstance(out, io.TextIOWrapper)
    out.reconfigure(line_buffering=True)
    out.buffer.write(b"bytes ")
    out.write("text\n")
    assert (out.isatty(), out.fileno(), out.encoding) == (False, stream.fileno(), "ascii")
    assert drain(reader) == b"bytes text\n"


@pytest.mark.parametrize(
    ("how", "seen"),
    [
        pytest.param({"line_buffering": True}, b"a line\n", id="by-line"),
        pytest.param({"write_through": True}, b"a line\nand a half", id="unbuffered"),
        pytest.param({}, b"", id="by-block"),
    ],
)
def test_it_is_buffered_as_before(pipe: tuple[int, TextIO], how: dict[str, Any], seen: bytes) -> None:
    reader, stream = pipe
    assert isinstance(stream, io.TextIOWrapper)
    stream.reconfigure(**how)
    out = drop_when_blocked(stream)
    out.write("a line\n")
    out.write("and a half")
    assert drain(reader) == seen


def test_streams_without_a_file_are_unchanged_and_missing_ones_are_discarded() -> None:
    memory = io.StringIO()
    assert drop_when_blocked(memory) is memory
    with drop_when_blocked(None) as nowhere:
        print("\ud800", file=nowhere, flush=True)


def test_a_file_stays_open_as_long_as_it_is_written(tmp_path: Path) -> None:
    """Otherwise another file, for example a connection, could get its file descriptor."""
    stream = (tmp_path / "log").open("w")
    known = weakref.ref(stream)
    out = drop_when_blocked(stream)
    del stream
    gc.collect()
    print("output", file=out, flush=True)
    assert (tmp_path / "log").read_text() == "output\n"
    kept = known()
    assert kept is not None
    kept.close()
