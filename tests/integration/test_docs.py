"""The pages of docs with code of agents and clients, run as they are written."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest
import yaml

from agentqueue import Client
from agentqueue.cli import main
from agentqueue.clock import monotonic
from agentqueue.console.app import create_app
from agentqueue.model.schedule import Schedule
from agentqueue.store import Schedules
from tests.support.pages import Page
from tests.support.servers import free_port
from tests.support.workers import final, until, worker_process

ROOT = Path(__file__).parents[2]
AGENT, DURABLE, LIMITS, SCHEDULES, BULLMQ = (
    Page(ROOT / "docs" / name)
    for name in (
        "write-an-agent.md",
        "durable-agents.md",
        "provider-limits.md",
        "schedules.md",
        "migrate-from-bullmq.md",
    )
)
TOKEN = "a-long-token"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    AGENT.write(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("page", "passed"),
    [(AGENT, 1), (DURABLE, 5), (LIMITS, 1), (SCHEDULES, 1)],
    ids=["write-an-agent", "durable-agents", "provider-limits", "schedules"],
)
def test_the_page_s_tests_pass_by_its_command(page: Page, passed: int, tmp_path: Path) -> None:
    page.write(tmp_path)
    (words,) = page.commands_of("pytest")
    program = str(Path(sys.executable).parent / words[0])
    done = subprocess.run([program, *words[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, f"{passed} passed" in done.stdout) == (0, True), done.stdout + done.stderr


async def test_schedules_are_listed_run_and_paused_by_the_page_s_commands(
    tmp_path: Path, server_url: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    SCHEDULES.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTQUEUE_REDIS_URL", server_url)
    resource = yaml.safe_load(SCHEDULES.files["agentqueue.yaml"])
    (spec,) = resource["spec"]["agents"]
    wanted = [Schedule.parse(fields) for fields in spec["schedules"]]
    with worker_process(spec["handler"], tmp_path, server_url):
        async with Client(server_url) as client:
            await Schedules(client.server).put("reports", source="resource", schedules=wanted)

            async def are_there() -> bool:
                return [schedule.name for schedule in await client.schedules("reports")] == ["nightly", "standup"]

            await until(are_there, what="the crons are registered")
            list_all, run_one, pause, resume = SCHEDULES.commands_of("agentqueue")
            for words in (list_all, run_one, pause, resume):
                assert await asyncio.to_thread(main.run, words[1:]) == 0
            out = capfd.readouterr().out
            for text in ("45 8 * * MON-FRI Europe/Berlin", "nightly is paused", "nightly is resumed"):
                assert text in out
            job = client.job(next(line for line in out.splitlines() if len(line) == 32), queue="reports")
            assert (await final(job)).result == "reminded the travel team"


def test_the_buyer_waits_for_its_approval_by_the_page_s_commands(tmp_path: Path) -> None:
    DURABLE.write(tmp_path)
    up, check, submit, status, explain, signal, last = DURABLE.commands_of("agentqueue")
    assert last == status

    def run(words: Sequence[str]) -> str:
        program = [str(Path(sys.executable).parent / words[0]), *words[1:]]
        done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    def wait_for(words: Sequence[str], text: str) -> str:
        deadline = monotonic() + 60
        while text not in (said := run(words)):
            assert monotonic() < deadline, f"{words} never said {text!r}: {said}"
        return said

    assert run(check) == "buyer:agent: queue buyer, jobs: buy, get-offer\n"
    command = [str(Path(sys.executable).parent / up[0]), *up[1:], "--port", str(free_port()), "--quiet"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for(["agentqueue", "stats"], "buyer")
            run(submit)
            said = wait_for(status, "suspended")
            assert "the signal approval" in said
            assert "sellers#1: done" in said
            assert "has waited for the signal approval" in run(explain)
            run(signal)
            assert "payment 1 of" in wait_for(status, "completed")
        finally:
            process.terminate()


async def test_the_agent_does_what_the_page_says(folder: Path, server_url: str) -> None:
    trip = {"departure": "BER", "arrival": "LIS"}
    async with Client(server_url) as client:
        with worker_process("search:agent", folder, server_url):
            job = await client.enqueue("flight-search", "search-flights", trip)
            assert await job.result(timeout=30) == [f"BER-LIS offer {number}" for number in (1, 2, 3)]
            nowhere = await client.enqueue("flight-search", "search-flights", trip | {"arrival": "BER"})
            assert (await final(nowhere)).state == "dead"

            async def summarized() -> bool:
                return (await client.stats("flight-search")).completed == 2

            await until(summarized, what="the second job, which the first one sent")
        completed = client.jobs("flight-search", "completed", fields=["result"])
        (summary,) = [one for one in await completed if one.name == "summarize"]
        assert summary.result == "3 offers"


def test_the_page_s_producer_declares_the_job_and_gets_its_result(folder: Path, server_url: str) -> None:
    with worker_process("search:agent", folder, server_url):
        environment = os.environ | {"AGENTQUEUE_REDIS_URL": server_url}
        command = [sys.executable, "producer.py"]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    assert (done.returncode, done.stdout) == (0, "3 offers\n"), done.stderr


def test_the_page_s_dockerfile_is_the_one_that_is_built() -> None:
    (text,) = [text for language, text in AGENT.blocks if language == "dockerfile"]
    assert (ROOT / "examples" / "travel" / "Dockerfile").read_text().endswith(text)


async def test_node_s_request_enqueues_a_job_once(server_url: str) -> None:
    """Its object literals are read as YAML, which they are too."""
    ((language, text),) = BULLMQ.blocks
    match = re.fullmatch(r"const answer = await fetch\(`(.*?)`, (\{.*\})\);\n(.*)", text, re.DOTALL)
    assert language == "js"
    assert match
    path = match[1].removeprefix("${CONSOLE}")
    given = yaml.safe_load(re.sub(r"JSON\.stringify\((.*)\)", r"\1", match[2]).replace("`", '"'))
    headers = {name: value.replace("${TOKEN}", TOKEN) for name, value in given["headers"].items()}
    async with Client(server_url) as client:
        transport = httpx.ASGITransport(app=create_app(client, token=TOKEN))
        async with httpx.AsyncClient(transport=transport, base_url="http://console", headers=headers) as console:
            first, again = [await console.request(given["method"], path, json=given["body"]) for _ in range(2)]
        assert f"{first.status_code}, and Location: {first.headers['Location']}" in match[3]
        assert again.json()["id"] == first.json()["id"] == given["body"]["id"]
        assert [(one.id, one.name) for one in await client.jobs("trips")] == [
            (given["body"]["id"], given["body"]["name"])
        ]
