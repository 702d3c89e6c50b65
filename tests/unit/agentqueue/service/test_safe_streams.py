"""Output that never fails and never waits long."""

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
    """Both ends of one, the second as Python opens stdout."""
    reader, writer = os.pipe()
    with open(writer, "w", encoding="ascii") as stream:  # noqa: PTH123  # a file descriptor
        yield reader, stream
    with suppress(OSError):  # the test has closed it
        os.close(reader)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALL_S", 0.01)


def drain(reader: int) -> bytes:
    """What there is to read now."""
    found = b""
    while select.select([reader], [], [], 0)[0]:
        found += os.read(reader, 65_536)
    return found


def test_what_is_read_is_all_there_in_order(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    out = drop_when_blocked(stream)
    lines = [f"{n} " + "x" * 3_000 for n in range(15)]  # as much as a pipe holds
    for line in lines:
        print(line, file=out, flush=True)
    out.write("a")
    out.flush()
    out.write("b\n")
    out.flush()
    assert drain(reader).decode().splitlines() == [*lines, "ab"]


@pytest.mark.usefixtures("impatient")
def test_a_reader_that_does_not_read_loses_lines_and_gets_whole_ones_again_later(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    out = drop_when_blocked(stream)
    for n in range(100):
        print(n, "x" * 10_000, file=out, flush=True)
    first = drain(reader).decode().splitlines()
    print("again", file=out, flush=True)
    assert first[0] == "0 " + "x" * 10_000
    assert 5 <= len(first) <= 8, "64 KiB of them"
    assert drain(reader).decode().splitlines()[-1] == "again"


def test_a_reader_that_is_gone_fails_no_write(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    os.close(reader)
    out = drop_when_blocked(stream)
    assert out.write("x" * 100_000) == 100_000
    out.flush()
    out.close()


def test_letters_that_the_output_has_not_are_written_out(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    print("\N{SNOWMAN} \ud800", file=drop_when_blocked(stream), flush=True)
    assert drain(reader) == b"\\u2603 \\ud800\n"


def test_it_is_a_text_file_as_any_other(pipe: tuple[int, TextIO]) -> None:
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


def test_what_has_no_file_stays_and_what_is_closed_goes_nowhere() -> None:
    memory = io.StringIO()
    assert drop_when_blocked(memory) is memory
    with drop_when_blocked(None) as nowhere:
        print("\ud800", file=nowhere, flush=True)


def test_a_file_stays_open_as_long_as_it_is_written(tmp_path: Path) -> None:
    """Else its number would soon be that of something else, a connection perhaps."""
    stream = (tmp_path / "log").open("w")
    known = weakref.ref(stream)
    out = drop_when_blocked(stream)
    del stream
    gc.collect()
    print("told", file=out, flush=True)
    assert (tmp_path / "log").read_text() == "told\n"
    kept = known()
    assert kept is not None
    kept.close()
