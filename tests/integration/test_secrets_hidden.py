"""No command, client error, condition, state of `up` or log line shows a password from a Redis URL."""

import asyncio
import base64
import dataclasses
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentqueue import Client, SyncClient
from agentqueue.cli.main import build_command, run
from agentqueue.console.app import create_app
from agentqueue.errors import AgentQueueError
from agentqueue.local import server as embedded
from agentqueue.local.state import UpState, find_up_state, write_up_state
from agentqueue.spec import AgentQueue, resolve
from agentqueue.store.options import ServerOptions
from agentqueue_operator.controller import reconciler
from agentqueue_operator.controller.redis_connection import RedisConnection
from agentqueue_operator.controller.redis_pool import RedisPool
from agentqueue_operator.controller.referenced_content import SecretReader
from agentqueue_operator.local.ports import AgentRun
from agentqueue_operator.local.variables import Documents
from tests.support.fake_cluster import FakeCluster
from tests.support.kubectl import FakeKubectl
from tests.support.secret_urls import BAD, FORMS, GOOD, SECRET

VARIABLES = ("AGENTQUEUE_REDIS_URL", "REDIS_URL")
EXTRA: dict[tuple[str, ...], list[str]] = {("console",): ["--host", "192.0.2.1"]}
"""An address that this machine does not have, so that a console with a valid URL does not serve for ever."""
RESOURCE = {
    "apiVersion": "agentqueue.dev/v1alpha1",
    "kind": "AgentQueue",
    "metadata": {"name": "q"},
    "spec": {
        "agents": [{"name": "a", "handler": "worker_code:agent"}],
        "redis": {"external": {"urlSecretRef": {"name": "u"}}},
    },
}


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(4096):
            self.request.sendall(b"-ERR unknown command, with args beginning with: '" + repr(data).encode() + b"'\r\n")


@pytest.fixture(scope="module")
def echo() -> Iterator[str]:
    """Yield the URL of a server that replies with the bytes it receives, the password included."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"redis://:{SECRET}@127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture(params=[*FORMS, "echo"])
def url(request: pytest.FixtureRequest, echo: str) -> str:
    return echo if request.param == "echo" else str(request.param)


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTQUEUE_CONSOLE_TOKEN", "0" * 32)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "worker_code.py").write_text(
        "from agentqueue import Agent\nagent = Agent('a')\n@agent.job\nasync def work(ctx): ...\n"
    )


def commands(command: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command of the program, also those of other packages."""
    command = command or build_command()
    children = getattr(command, "commands", None)
    if children is None:
        yield path, command
        return
    for name, child in children.items():
        yield from commands(child, (*path, name))


COMMANDS = dict(commands())
CONNECTING = [path for path, command in COMMANDS.items() if any(it.name == "redis" for it in command.params)]


def arguments(path: tuple[str, ...]) -> list[str]:
    """Return a command line with the required arguments."""
    needed = [it for it in COMMANDS[path].params if it.param_type_name == "argument" and it.required]
    return [*path, *(f"some-{it.name}".replace("_", "-") for it in needed), *EXTRA.get(path, [])]


def check_silent(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Check that the command fails, and that its output does not have the secret, even with --debug."""
    code = run(words, debug=True)
    out, err = capsys.readouterr()
    assert code != 0, f"{words}: {out}"
    assert SECRET not in out + err, err
    assert "error: unexpected " not in err, err


def test_there_are_commands_to_look_at() -> None:
    assert {("submit",), ("worker",), ("console",), ("explain",), ("dead", "replay")} <= set(CONNECTING)


def test_every_command_with_the_url_as_an_option(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for path in CONNECTING:
        check_silent([*arguments(path), "--redis", url], capsys)


@pytest.mark.parametrize("url", [*GOOD[::5], *BAD[::5]])
def test_every_command_with_the_url_as_a_variable(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        with monkeypatch.context() as patch:
            patch.setenv(name, url)
            for path in CONNECTING:
                check_silent(arguments(path), capsys)


@pytest.mark.parametrize("url", [*GOOD[::4], *BAD[::4]])
def test_every_command_with_the_url_in_a_wrong_place(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for path in COMMANDS:
        for words in ([*path, url], [*path, f"--nothing={url}"], [*arguments(path), url, url]):
            run(words, debug=True)
            out, err = capsys.readouterr()
            assert SECRET not in out + err, words
        if path in CONNECTING:
            check_silent([*arguments(path), "--in", url], capsys)
    check_silent(["--redis", url, "stats"], capsys)
    check_silent([url], capsys)


def test_in_a_cluster_whose_secret_has_the_url(
    url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeKubectl(tmp_path / "kubectl")
    monkeypatch.setenv("PATH", f"{fake.install()}{os.pathsep}{os.environ['PATH']}")
    fake.put("agentqueues.agentqueue.dev", "prod", "q", {"spec": RESOURCE["spec"]})
    fake.put(
        "agentqueues.agentqueue.dev",
        "prod",
        "m",
        {
            "spec": {"redis": {"managed": {}}},
            "status": {"redis": {"endpoint": "m.prod.svc:6379", "secretName": "u"}},
        },
    )
    fake.put("secret", "prod", "u", {"data": {"url": base64.b64encode(url.encode()).decode()}})
    fake.serve(1)
    for name in ("q", "m"):
        check_silent(["stats", "--in", f"prod/{name}"], capsys)


async def test_clients(url: str) -> None:
    async def asynchronous() -> None:
        async with Client(url, timeout=5) as client:
            await client.stats("a")

    def plain() -> None:
        with SyncClient(url, timeout=5) as client:
            client.stats("a")

    for attempt in (asynchronous(), asyncio.to_thread(plain)):
        with pytest.raises(AgentQueueError) as caught:
            await attempt
        assert SECRET not in "".join(traceback.format_exception(caught.value))
        assert SECRET not in repr(caught.value)


@pytest.mark.parametrize("url", [*FORMS])
def test_the_resource(url: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A URL stands in the place of a reference, and the validation's errors quote it."""
    for redis in ({"external": {"urlSecretRef": url}}, {"external": {"url": url}}, url, {url: 1}):
        resource = RESOURCE | {"spec": {"agents": [{"name": "a", "handler": url}], "redis": redis}}
        (tmp_path / "q.json").write_text(json.dumps(resource))
        for command in (["validate"], ["validate", "--json"]):
            run([*command, "q.json"], debug=True)
            out, err = capsys.readouterr()
            assert SECRET not in out + err


async def test_conditions(url: str) -> None:
    cluster = FakeCluster()
    cluster.put({"kind": "Secret", "metadata": {"name": "u"}, "data": {"url": base64.b64encode(url.encode()).decode()}})
    secrets = SecretReader(cluster, "n", clock=lambda: 0.0)
    link = RedisConnection(
        secrets, RedisPool().acquire, clock=lambda: 0.0, now=lambda: datetime(2026, 1, 1, tzinfo=UTC)
    )
    facts = await link.observe(resolve(AgentQueue.model_validate(RESOURCE)), "n", [], "")
    await link.close()
    assert facts.problem is not None
    assert SECRET not in repr(facts)


@pytest.mark.parametrize(
    "url", ["redis://:hunter2@127.0.0.1:1?decode_responses=true", "redis://:hunter2@127.0.0.1:1?ssl=true"]
)
async def test_a_condition_names_the_parameter_and_the_secret(url: str) -> None:
    cluster = FakeCluster()
    cluster.put({"kind": "Secret", "metadata": {"name": "u"}, "data": {"url": base64.b64encode(url.encode()).decode()}})
    secrets = SecretReader(cluster, "n", clock=lambda: 0.0)
    link = RedisConnection(
        secrets, RedisPool().acquire, clock=lambda: 0.0, now=lambda: datetime(2026, 1, 1, tzinfo=UTC)
    )
    facts = await link.observe(resolve(AgentQueue.model_validate(RESOURCE)), "n", [], "")
    assert facts.problem is not None
    assert facts.problem.message.startswith("key url of the Secret u: the Redis URL's parameter ")


async def test_the_console(echo: str) -> None:
    import httpx

    for url in (echo, f"redis://:{SECRET}@127.0.0.1:1"):
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(Client(url, timeout=5), token="0" * 32)),
            base_url="http://127.0.0.1",
            headers={"Authorization": "Bearer " + "0" * 32},
        ) as http:
            for path in ("/api/v1/queues", "/readyz", "/api/queues", "/api/v1/queues/a"):
                assert SECRET not in (await http.get(path)).text


def outcome(command: list[str], environment: dict[str, str], until: str) -> str:
    """Return the output of a process, which is stopped when a line has the text."""
    with subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if until in line:
                process.send_signal(signal.SIGTERM)
        return "".join(lines)


@pytest.mark.parametrize("kind", ["echo", "closed", *BAD[:3]])
@pytest.mark.parametrize("module", ["agentqueue_worker", "agentqueue.console"])
def test_log_lines_of_processes(kind: str, module: str, echo: str) -> None:
    url = {"echo": echo, "closed": f"redis://:{SECRET}@127.0.0.1:1"}.get(kind, kind)
    environment = {
        "AGENTQUEUE_REDIS_URL": url,
        "AGENTQUEUE_HANDLER": "worker_code:agent",
        "AGENTQUEUE_LOG_LEVEL": "debug",
        "AGENTQUEUE_CONSOLE_PORT": "0",
    }
    said = outcome(
        [sys.executable, "-m", module], environment, "redis_unavailable" if "worker" in module else "console: "
    )
    assert said
    assert SECRET not in said


@pytest.mark.parametrize("url", [f"redis://:{SECRET}@127.0.0.1:1", *BAD[:3]])
@pytest.mark.parametrize("place", ["file", "shell"])
def test_up_with_an_external_redis(url: str, place: str, tmp_path: Path) -> None:
    documents: list[Any] = [RESOURCE]
    if place == "file":
        documents.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "u"}, "stringData": {"url": url}})
    (tmp_path / "q.yaml").write_text("\n---\n".join(map(json.dumps, documents)))
    command = [sys.executable, "-c", "from agentqueue.cli.main import main; main()", "up", "q.yaml"]
    said = outcome(command, {"AGENTQUEUE_REDIS_URL": url} if place == "shell" else {}, "does not answer")
    assert said
    assert SECRET not in said
    state = tmp_path / ".agentqueue" / "up.json"
    assert (
        not state.exists() or state.stat().st_mode & 0o077 == 0
    )  # It has the password, so only its owner can read it.


def test_the_echo_is_one(echo: str) -> None:
    with socket.create_connection(("127.0.0.1", int(echo.rpartition(":")[2]))) as connection:
        connection.sendall(SECRET.encode())
        assert SECRET.encode() in connection.recv(4096)


SECRET_FIELDS = [
    (UpState, "connection"),
    (embedded._Record, "password"),
    (AgentRun, "environment"),
    (reconciler._Credentials, "password"),
    (reconciler._Credentials, "token"),
    (Documents, "secrets"),
    (Documents, "shell"),
    (ServerOptions, "url"),
]


@pytest.mark.parametrize(("kind", "name"), SECRET_FIELDS, ids=lambda it: getattr(it, "__name__", it))
def test_no_object_shows_the_secret_that_it_holds(kind: Any, name: str) -> None:
    held = next(field for field in dataclasses.fields(kind) if field.name == name)
    assert not held.repr


def test_the_state_of_up_as_users_print_it_has_no_password(tmp_path: Path) -> None:
    url = f"redis://:{SECRET}@127.0.0.1:1/0"
    write_up_state(tmp_path, {"AGENTQUEUE_REDIS_URL": url}, pid=os.getpid())
    state = find_up_state(tmp_path)
    assert state is not None
    assert state.connection["AGENTQUEUE_REDIS_URL"] == url
    assert SECRET not in f"{state} {state!r}"
