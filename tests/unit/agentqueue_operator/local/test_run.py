"""Tests of `agentqueue up` with a full disk or a read-only folder."""

import asyncio
import sys
from pathlib import Path

import pytest

from agentqueue.errors import QueueUnavailable
from agentqueue.local.server import EmbeddedServer, write_private
from agentqueue_operator.local import run
from agentqueue_operator.local.plain_screen import PlainScreen
from agentqueue_operator.local.processes import LocalProcesses


class Server(EmbeddedServer):
    """A dead embedded server that cannot start while the disk is full."""

    def __init__(self) -> None:
        self.runs = False
        self.room = False
        self.starts = 0

    @property
    def is_alive(self) -> bool:
        return self.runs

    def start(self) -> None:
        self.starts += 1
        if not self.room:
            raise QueueUnavailable("the embedded Valkey can't write to its folder (No space left on device)")
        self.runs = True


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the clock of the test, a number in a list."""
    clock = [100.0]
    monkeypatch.setattr(run, "monotonic", lambda: clock[0])
    return clock


def test_a_server_that_cant_start_again_is_tried_ever_less_often_and_comes_back(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server()
    revive = run._Reviver(server, PlainScreen(sys.stdout, quiet=False, width=10))
    for _ in range(100):
        revive()
        now[0] += 1.0
    assert server.starts == 8, "after 1, 2, 4, 8, 16, 30 and 30 s"
    assert "No space left on device" in capsys.readouterr().out
    server.room = True
    now[0] += 30.0
    revive()
    assert server.is_alive
    server.runs = False
    revive()
    assert server.is_alive, "and after its next death it starts at once"


async def test_workers_that_cannot_be_listed_are_reported_and_run_on(tmp_path: Path) -> None:
    printed: list[tuple[str, str]] = []
    ended = asyncio.Event()
    processes = LocalProcesses(
        tmp_path / "gone", base={}, cwd=tmp_path, print_output=lambda *line: printed.append(line), wake=ended.set
    )
    processes.forget_leftovers()
    ((who, what),) = printed
    assert who == "up"
    assert "workers.json (No such file or directory): free disk space" in what


def test_a_file_that_cant_be_written_whole_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_private(tmp_path / "file", "\udcff")
    assert list(tmp_path.iterdir()) == []


def test_an_embedded_server_says_why_it_cant_use_its_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(QueueUnavailable, match=r"can't write to .*file.* \(Not a directory|File exists\)"):
        EmbeddedServer(tmp_path / "file").start()


def test_a_log_on_a_full_disk_loses_its_lines_and_ends_nothing() -> None:
    with Path("/dev/full").open("w") as full:
        screen = PlainScreen(full, quiet=False, width=10)
        for _ in range(1_000):
            screen.print_output("work-bcdfg", "x" * 100)
        screen.finish([])


def test_what_its_output_has_no_letter_for_is_written_out(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="ascii") as log:
        PlainScreen(log, quiet=False, width=4).print_output("work", "\N{SNOWMAN}")
    assert (tmp_path / "log").read_text() == "work | \\u2603\n"
