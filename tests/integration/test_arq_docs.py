"""docs/migrate-from-arq.md, run as it is written: Python blocks are files, shell blocks are commands."""

import re
import shlex
from pathlib import Path

import pytest

from tests.support.arq_programs import command, execute, surroundings
from tests.support.workers import until, worker_process

PAGE = Path(__file__).parents[2] / "docs" / "migrate-from-arq.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(PAGE.read_text()) if found == language]


@pytest.fixture
def folder(tmp_path: Path, server_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REDIS_URL", server_url)
    for text in blocks("python") + blocks("yaml"):
        name = text.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(text)
    return tmp_path


def test_every_block_of_the_page_is_run() -> None:
    languages = [language for language, _ in BLOCK.findall(PAGE.read_text())]
    assert set(languages) == {"python", "sh", "yaml"}
    assert PAGE.read_text().count("```") == 2 * len(languages)
    files = [text.partition("\n")[0] for text in blocks("python") + blocks("yaml")]
    assert files == ["# trips.py", "# own_worker.py", "# enqueue.py", "# agentqueue.yaml"]


async def test_its_programs_and_commands_work_together(folder: Path, server_url: str) -> None:
    lines = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    worker, *others = lines
    assert worker == ["agentqueue", "worker", "trips.WorkerSettings"]
    said: dict[str, str] = {}
    with worker_process(worker[-1], folder, server_url, QUEUE="arq:queue") as running:
        await running.said("worker_started")
        for words in (words for words in others if words[-1] != "own_worker.py"):
            if words[:2] == ["agentqueue", "status"]:
                await until(lambda words=words: _is_completed(words, folder, server_url), what="the job is completed")
            said[" ".join(words[:2])] = _run(words, folder, server_url)
    assert said["python enqueue.py"] == "BER-LIS: 3 offers, try 1\n"
    assert "trip-18" in said["agentqueue submit"]
    assert "completed" in said["agentqueue status"]
    assert "agentqueue.yaml" in said["agentqueue validate"]


async def test_its_own_worker_does_what_waits(folder: Path, server_url: str) -> None:
    _run(["agentqueue", "submit", "arq:queue", "search_flights", '"BER"', "--id", "one"], folder, server_url)
    words = next(words for block in blocks("sh") if "own_worker" in (words := shlex.split(block))[-1])
    assert _run(words, folder, server_url).splitlines()[-1] == "jobs done: 1"


def _run(words: list[str], folder: Path, url: str) -> str:
    return execute(command(words[0]), *words[1:], folder=folder, env=surroundings(url))


def _is_completed(words: list[str], folder: Path, url: str) -> bool:
    return "completed" in _run(words, folder, url)
