"""docs/streams.md, run as it is written: the application, its page's requests, and the tests."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import httpx

from agentqueue.client.stream_tokens import is_stream_token
from tests.support.pages import Page
from tests.support.servers import free_port
from tests.support.waiting import until
from tests.support.workers import worker_process

PAGE = Page(Path(__file__).parents[2] / "docs" / "streams.md")
HTML = next(text for language, text in PAGE.blocks if language == "html")
BIN = Path(sys.executable).parent


def test_the_pages_tests_pass_by_its_command(tmp_path: Path) -> None:
    PAGE.write(tmp_path)
    (words,) = PAGE.commands_of("pytest")
    command = [str(BIN / words[0]), *words[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, "2 passed" in done.stdout) == (0, True), done.stdout + done.stderr


def test_the_pages_command_prints_a_token() -> None:
    (words,) = PAGE.commands_of("agentqueue")
    environment = os.environ | {"AGENTQUEUE_CONSOLE_TOKEN": "a-long-token"}
    command = [str(BIN / words[0]), *words[1:]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert is_stream_token("a-long-token", "ID", done.stdout.strip(), now_s=0)


async def test_the_application_streams_an_answer_to_its_page(tmp_path: Path, server_url: str) -> None:
    PAGE.write(tmp_path)
    (tmp_path / "page.html").write_text(HTML)
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "uvicorn", "web:app", "--port", str(port), "--log-level", "warning"]
    environment = os.environ | {"AGENTQUEUE_REDIS_URL": server_url}
    with worker_process("writer:agent", tmp_path, server_url):
        web = await asyncio.create_subprocess_exec(*command, cwd=tmp_path, env=environment)
        try:
            async with httpx.AsyncClient(base_url=url, timeout=30) as browser:

                async def shown() -> str | None:
                    try:
                        return (await browser.get("/")).text
                    except httpx.ConnectError:
                        return None

                assert await until(shown, what="the application answers", deadline=30) == HTML
                job_id = (await browser.post("/answers", params={"topic": "tea"})).json()["id"]
                text = (await browser.get(f"/answers/{job_id}/stream")).text
            events = [event.splitlines() for event in text.split("\n\n")[1:-1]]
            data = [line.removeprefix("data: ") for event in events for line in event if line.startswith("data: ")]
            assert data == ['"Here "', '"is "', '"all "', '"about "', '"tea. "', '"completed"']
            assert events[-1][1] == "event: end"
        finally:
            web.terminate()
            await web.wait()


def test_the_page_listens_to_every_event_that_changes_its_text() -> None:
    for part in ("source.onmessage", 'addEventListener("rewind"', 'addEventListener("end"', "`/answers/${id}/stream`"):
        assert part in HTML
