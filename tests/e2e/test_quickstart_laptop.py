"""README.md and docs/quickstart-laptop.md, run as they are written, in a folder of their own."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

import pytest

from agentqueue.clock import monotonic
from tests.support.cluster.program import ROOT
from tests.support.pages import Page
from tests.support.servers import free_port

README, QUICKSTART = Page(ROOT / "README.md"), Page(ROOT / "docs" / "quickstart-laptop.md")
BIN = Path(sys.executable).parent
UP = ["agentqueue", "up", "agentqueue.yaml"]
ELSEWHERE = {"helm", "kubectl"}
"""Programs whose commands tests/e2e/test_quickstart_kind.py runs."""


class Reader:
    """Follows a page."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder = page, folder
        page.write(folder)
        self.log = folder / "up.log"
        with self.log.open("wb") as output:
            command = [str(BIN / UP[0]), *UP[1:], "--port", str(free_port()), "--quiet"]
            self.up = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, start_new_session=True)

    def run(self, words: Sequence[str], *, code: int = 0) -> str:
        """Standard output of a command of the page."""
        program = [str(BIN / words[0]), *words[1:]]
        done = subprocess.run(program, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, f"{words}: {done.stdout}{done.stderr}{self.log.read_text()}"
        return done.stdout

    def until(self, words: Sequence[str], said: str) -> None:
        """Run a command until it says something."""
        deadline = monotonic() + 60
        while said not in self._said(words):
            assert monotonic() < deadline, f"{words} never said {said!r}: {self._said(words)} {self.log.read_text()}"

    def _said(self, words: Sequence[str]) -> str:
        program = [str(BIN / words[0]), *words[1:]]
        return subprocess.run(program, cwd=self.folder, capture_output=True, text=True, timeout=60, check=False).stdout

    def end(self) -> None:
        """Ctrl-C, then wait."""
        self.up.terminate()
        self.up.wait(60)


@pytest.fixture(params=[README, QUICKSTART], ids=["readme", "quickstart"])
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reader]:
    found = Reader(request.param, tmp_path)
    try:
        found.until(["agentqueue", "stats", "--json"], "greeter")
        yield found
    finally:
        found.end()


@pytest.mark.parametrize("page", [README, QUICKSTART], ids=["readme", "quickstart"])
def test_every_command_is_of_a_program_that_the_tests_run(page: Page) -> None:
    assert UP in page.commands
    assert {words[0] for words in page.commands} - ELSEWHERE <= {"agentqueue", "make", ".", "python"}
    targets = set(re.findall(r"^([\w-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {words[1] for words in page.commands_of("make")} <= targets


def test_its_commands_work_in_their_order(reader: Reader) -> None:
    said = {}
    for words in (words for words in reader.page.commands_of("agentqueue") if words != UP):
        if words[1:3] == ["dead", "list"] and "nobody" in json.dumps(reader.page.commands):
            reader.until(["agentqueue", "status", "nobody"], "dead")
        said[" ".join(words[1:])] = reader.run(words)
    assert "hello world" in said["""submit greeter say-hello "world" --wait"""]


def test_its_python_program_gets_its_answer(reader: Reader) -> None:
    (words,) = reader.page.commands_of("python")
    assert reader.run(words) in {"hello world\n", "hello Berlin\n"}


@pytest.mark.parametrize("page", [README, QUICKSTART], ids=["readme", "quickstart"])
def test_its_commands_are_found_once_it_has_activated_the_environment(page: Page, tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    before = list(takewhile(lambda words: words[0] not in {"agentqueue", "python"}, page.commands))
    assert before, "the first thing to do"
    lines = [shlex.join(words) for words in before if words[0] != "make"]
    done = subprocess.run(
        ["/bin/sh", "-ec", "\n".join([*lines, "command -v agentqueue", "command -v python"])],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == [str(BIN / "agentqueue"), str(BIN / "python")], done.stderr
