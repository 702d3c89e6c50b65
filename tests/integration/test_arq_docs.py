"""docs/migrate-from-arq.md, run as it is written: Python blocks are files, shell blocks are commands."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.support.arq_programs import command, execute, surroundings
from tests.support.pages import Page
from tests.support.workers import until, worker_process

PAGE = Page(Path(__file__).parents[2] / "docs" / "migrate-from-arq.md")


@pytest.fixture
def folder(tmp_path: Path, server_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("REDIS_URL", server_url)
    PAGE.write(tmp_path)
    return tmp_path


def test_every_block_of_the_page_is_run() -> None:
    assert {language for language, _ in PAGE.blocks} == {"python", "sh", "yaml"}
    assert [*PAGE.files] == ["trips.py", "own_worker.py", "enqueue.py", "agentqueue.yaml"]
    assert len(PAGE.files) == sum(language != "sh" for language, _ in PAGE.blocks)


async def test_its_programs_and_commands_work_together(folder: Path, server_url: str) -> None:
    worker, *others = PAGE.commands
    assert worker == ["agentqueue", "worker", "trips.WorkerSettings"]
    said: dict[str, str] = {}
    with worker_process(worker[-1], folder, server_url, QUEUE="arq:queue") as running:
        await running.said("worker_started")
        for words in (words for words in others if words[-1] != "own_worker.py"):
            if words[:2] == ["agentqueue", "status"]:
                await until(partial(_is_completed, words, folder, server_url), what="the job is completed")
            said[" ".join(words[:2])] = _run(words, folder, server_url)
    assert said["python enqueue.py"] == "BER-LIS: 3 offers, try 1\n"
    assert "trip-18" in said["agentqueue submit"]
    assert "completed" in said["agentqueue status"]
    assert "agentqueue.yaml" in said["agentqueue validate"]


async def test_its_own_worker_does_what_waits(folder: Path, server_url: str) -> None:
    _run(["agentqueue", "submit", "arq:queue", "search_flights", '"BER"', "--id", "one"], folder, server_url)
    words = next(words for words in PAGE.commands_of("python") if words[-1] == "own_worker.py")
    assert _run(words, folder, server_url).splitlines()[-1] == "jobs done: 1"


def _run(words: Sequence[str], folder: Path, url: str) -> str:
    return execute(command(words[0]), *words[1:], folder=folder, env=surroundings(url))


def _is_completed(words: Sequence[str], folder: Path, url: str) -> bool:
    return "completed" in _run(words, folder, url)
