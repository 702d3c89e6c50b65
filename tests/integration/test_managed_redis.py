"""The managed Redis's own files on a real server: redis.conf as rendered, the password's line, the probe's script."""

import base64
import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from agentqueue.spec import AgentQueue, resolve
from agentqueue_operator.resources.render import Images, RenderContext, redis_name, render
from tests.support import resources
from tests.support.certificates import issue
from tests.support.servers import binary, free_port

ETC = "/etc/agentqueue"
SHELL = "/bin/sh"
PASSWORD = 'it\'s "hard" \\ to $quote; # p/w@d:é '
POLL_S = 0.02
WAIT_S = 30.0


@dataclass
class Files:
    """The ConfigMap's and the Secret's files where a pod would have them, but for a folder before their paths."""

    folder: Path
    port: int
    url: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=lambda: {"PATH": os.environ["PATH"]})
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run the container's command."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, env=self.environment, stdout=log, stderr=log)

    def end(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def client(self) -> "redis.Redis":
        """By the Secret's url."""
        return redis.Redis.from_url(self.url, decode_responses=True)

    def probe(self, what: str, password: str = PASSWORD) -> tuple[int, str]:
        """Exit code and output of the probe."""
        script = self.folder / ETC[1:] / "redis" / "probe.sh"
        environment = {**self.environment, "REDISCLI_AUTH": password}
        command = [SHELL, str(script), what]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
        return done.returncode, done.stdout.strip()

    def until(self, what: str, code: int, said: str = "") -> None:
        """Wait until the probe ends so."""
        deadline = time.monotonic() + WAIT_S
        answer = self.probe(what)
        while answer[0] != code or said not in answer[1]:
            assert time.monotonic() < deadline, f"{what}: {answer}, {(self.folder / 'log').read_text()[-2000:]}"
            time.sleep(POLL_S)
            answer = self.probe(what)


def rendered(folder: Path, **managed: Any) -> Files:
    """Lay the files out."""
    data = resources.resource("q", redis={"managed": managed})
    context = RenderContext(namespace="ns", images=Images("w", "r", "c"), password=PASSWORD)
    made = render(resolve(AgentQueue.model_validate(data)), context)
    mine = {it["kind"]: it for it in made if it["metadata"]["name"] == redis_name("q")}
    secret = {key: base64.b64decode(value).decode() for key, value in mine["Secret"]["data"].items()}
    port, host = free_port(), f"{redis_name('q')}.ns.svc:6379"
    (container,) = mine["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    command = [SHELL, *(part.replace(ETC, f"{folder}{ETC}") for part in container["command"][1:])]
    files = Files(folder, port, secret["url"].replace(host, f"localhost:{port}"), command)
    (folder / "data").mkdir()
    contents = {"redis-auth/auth.conf": secret["auth.conf"]}
    contents |= {f"redis/{name}": text for name, text in mine["ConfigMap"]["data"].items()}
    for name, text in contents.items():
        path = folder / ETC[1:] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        here = text.replace(ETC, f"{folder}{ETC}").replace("dir /data", f"dir {folder}/data").replace("6379", str(port))
        path.write_text(here, encoding="utf-8")
    return files


@contextlib.contextmanager
def running(folder: Path, **managed: Any) -> Iterator[Files]:
    files = rendered(folder, **managed)
    try:
        files.start()
        files.until("ready", 0)
        yield files
    finally:
        files.end()


def test_the_server_is_as_the_resource_says_and_takes_only_the_password(tmp_path: Path) -> None:
    limits = {"limits": {"memory": "256Mi"}}
    config = {"hz": "50", "notify-keyspace-events": "", "client-output-buffer-limit": "normal 0 0 0"}
    with running(tmp_path, resources=limits, config=config) as files, files.client() as client:
        assert client.ping()
        found = client.config_get("*")
        assert (found["appendonly"], found["appendfsync"], found["save"]) == ("yes", "always", "")
        assert (found["maxmemory"], found["maxmemory-policy"]) == (str(192 * 1024 * 1024), "noeviction")
        assert found["hz"] == "50"
        with redis.Redis(port=files.port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_an_image_of_valkey_runs_too(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    client = shutil.which("redis-cli")
    assert client is not None
    (programs / "valkey-server").symlink_to(binary("valkey"))
    (programs / "valkey-cli").symlink_to(client)
    files = rendered(tmp_path)
    files.environment = {"PATH": str(programs)}
    try:
        files.start()
        files.until("ready", 0)
        with files.client() as connected:
            assert "valkey_version" in connected.info("server")
    finally:
        files.end()


def test_what_was_written_is_there_after_kill_9(tmp_path: Path) -> None:
    with running(tmp_path) as files:
        with files.client() as client:
            client.set("kept", "1")
        files.end()
        files.start()
        files.until("ready", 0)
        with files.client() as client:
            assert client.get("kept") == "1"


def test_over_tls_a_client_with_the_authority_gets_in_and_one_without_tls_does_not(tmp_path: Path) -> None:
    issued = issue(tmp_path / "issued", "localhost")
    place = tmp_path / ETC[1:] / "redis-tls"
    place.mkdir(parents=True)
    cert, key = issued.of("server")
    for name, source in {"tls.crt": cert, "tls.key": key, "ca.crt": issued.ca}.items():
        (place / name).write_text(issued.text(source))
    with running(tmp_path, tls={"secretName": "cert"}) as files:
        assert files.url.startswith("rediss://")
        with redis.Redis.from_url(files.url, ssl_ca_certs=issued.ca) as client:
            assert client.ping()
        with redis.Redis(port=files.port, password=PASSWORD) as plain, pytest.raises(redis.ConnectionError):
            plain.ping()


def test_a_server_that_loads_its_data_is_alive_but_not_ready(tmp_path: Path) -> None:
    """A key takes 0.2 s to load, and what comes meanwhile is answered after each."""
    slow = {"key-load-delay": "200000", "loading-process-events-interval-bytes": "1024"}
    with running(tmp_path, config=slow) as files:
        with files.client() as client:
            client.config_set("key-load-delay", "0")
            client.mset({f"key{number}": os.urandom(2_000) for number in range(100)})
            client.bgrewriteaof()
            deadline = time.monotonic() + WAIT_S
            while client.info("persistence")["aof_rewrite_in_progress"]:
                assert time.monotonic() < deadline
                time.sleep(POLL_S)
        files.end()
        files.start()
        files.until("ready", 1, "LOADING")
        assert files.probe("live") == (0, "")


def test_a_server_with_another_password_is_alive_but_not_ready(tmp_path: Path) -> None:
    with running(tmp_path) as files:
        code, said = files.probe("ready", "the one before it was changed")
        assert (code, "WRONGPASS" in said) == (1, True)
        assert files.probe("live", "the one before it was changed")[0] == 0


def test_a_server_that_runs_a_long_script_is_alive_and_ready(tmp_path: Path) -> None:
    with running(tmp_path, config={"busy-reply-threshold": "50"}) as files, files.client() as client:
        busy = threading.Thread(target=loop_for_ever, args=(files,))
        busy.start()
        deadline = time.monotonic() + WAIT_S
        while not is_busy(client):
            assert time.monotonic() < deadline
        assert files.probe("ready")[0] == 0
        assert files.probe("live")[0] == 0
        client.script_kill()
        busy.join()


def loop_for_ever(files: Files) -> None:
    """Until the script is killed."""
    with files.client() as client, pytest.raises(redis.ResponseError, match="killed"):
        client.eval("while true do end", 0)


def is_busy(client: "redis.Redis") -> bool:
    try:
        client.ping()
    except redis.ResponseError as error:
        return "BUSY" in str(error)
    return False


def test_no_server_is_neither_alive_nor_ready_and_the_probe_says_why(tmp_path: Path) -> None:
    files = rendered(tmp_path)
    for what in ("live", "ready"):
        code, said = files.probe(what)
        assert code == 1
        assert "Could not connect" in said
