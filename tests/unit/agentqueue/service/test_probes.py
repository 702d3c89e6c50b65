"""The probes' server with peers that disconnect, that send nothing, and with too many of them."""

import contextlib
import re
import resource
import socket
import struct
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from agentqueue.clock import monotonic
from agentqueue.service import probes as module
from agentqueue.service.probes import MAX_CONNECTIONS, Probes

PATIENCE = 30.0
RESET = struct.pack("ii", 1, 0)
"""Value of SO_LINGER that closes a connection at once, with a reset."""


def until(condition: Callable[[], object]) -> None:
    ends, pause = monotonic() + PATIENCE, threading.Event()
    while not condition():
        assert monotonic() < ends, "the condition did not come true"
        pause.wait(0.005)


@contextlib.contextmanager
def probing(live: Callable[[], str] = lambda: "") -> Iterator[Probes]:
    one = Probes(0, "PORT", live=live, ready=lambda: "", registry=CollectorRegistry())
    one.start()
    try:
        yield one
    finally:
        one.stop()


def connect(port: int, first: bytes = b"GET /heal") -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    one.sendall(first)
    return one


def ask(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE) as answer:
        return str(answer.read().decode())


def ended(one: socket.socket) -> bool:
    """Wait until the server closes the connection, and return whether it did."""
    try:
        return one.recv(1) == b""
    except ConnectionError:
        return True


def test_a_peer_that_disconnects_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    asked, gone = threading.Event(), threading.Event()

    def live() -> str:
        asked.set()
        assert gone.wait(PATIENCE)
        return ""

    with capture_logs() as logged, probing(live) as probes:
        with connect(probes.port, b"GET /healthz HTTP/1.0\r\n\r\n") as peer:
            assert asked.wait(PATIENCE)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        gone.set()
        until(lambda: logged)
    assert [(line["event"], line["log_level"], line["peer"]) for line in logged] == [
        ("probe_peer_gone", "debug", "127.0.0.1")
    ]
    assert capfd.readouterr().err == ""


def test_a_check_that_fails_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    def live() -> str:
        raise RuntimeError("a bug")

    with capture_logs() as logged, probing(live) as probes:
        with connect(probes.port, b"GET /healthz HTTP/1.0\r\n\r\n") as peer:
            assert ended(peer)
        until(lambda: logged)
    assert [(line["event"], line["log_level"], str(line["exc_info"])) for line in logged] == [
        ("probe_failed", "error", "a bug")
    ]
    assert capfd.readouterr().err == ""


def test_silent_connections_are_closed_for_new_ones() -> None:
    with probing() as probes, contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(probes.port)) for _ in range(3 * MAX_CONNECTIONS)]
        assert ask(probes.port) == "alive\n"
        for one in idle[: 2 * MAX_CONNECTIONS]:
            assert ended(one), "the oldest went first"


@pytest.mark.parametrize("name", ["IDLE_TIMEOUT_S", "MAX_CONNECTION_S"])
def test_an_incomplete_request_times_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, name, 0.05)
    monkeypatch.setattr(module._Handler, "timeout", module.IDLE_TIMEOUT_S)
    with probing() as probes, connect(probes.port) as one:
        assert ended(one)


def test_a_request_that_arrives_byte_by_byte_gets_no_extra_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CONNECTION_S", 0.3)
    with probing() as probes, connect(probes.port) as one:
        one.settimeout(0.01)

        def is_closed() -> bool:
            with contextlib.suppress(TimeoutError):
                one.sendall(b"x")
                return ended(one)
            return False

        with contextlib.suppress(ConnectionError):
            until(is_closed)


def test_responses_are_sent_without_delay() -> None:
    with probing() as probes, connect(probes.port):

        def accepted() -> list[int]:
            sockets = list(probes._server._since)
            return [one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in sockets]

        until(lambda: accepted() not in ([], [0]))


SCRIPT = """
from agentqueue.service.probes import Probes
import threading
one = Probes(0, "PORT", live=lambda: "", ready=lambda: "")
one.start()
print("port", one.port, flush=True)
threading.Event().wait()
"""


def test_health_responds_with_fewer_file_descriptors_than_connections() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        found = re.match(r"port (\d+)", process.stdout.readline())
        assert found is not None
        port = int(found[1])
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (256, 256))
        with contextlib.ExitStack() as stack:
            for _ in range(400):
                stack.enter_context(connect(port))
            for _ in range(3):
                assert ask(port) == "alive\n"
    finally:
        process.kill()
        _, err = process.communicate(timeout=20)
    assert err == ""
